"""Runs as CodeCarbon's emissions.csv, for dashboards that read it."""

import csv
import io
from collections import Counter
from collections.abc import Iterable
from typing import Any

from greenseg.energy.derived import JOULES_PER_KWH
from greenseg.report.export import no_formula
from greenseg.report.results import by_configuration
from greenseg.report.run import Run

COLUMNS = (
    "timestamp", "project_name", "run_id", "experiment_id", "duration", "emissions", "emissions_rate", "cpu_power",
    "gpu_power", "ram_power", "cpu_energy", "gpu_energy", "ram_energy", "energy_consumed", "water_consumed",
    "country_name", "country_iso_code", "region", "cloud_provider", "cloud_region", "os", "python_version",
    "codecarbon_version", "cpu_count", "cpu_model", "gpu_count", "gpu_model", "longitude", "latitude", "ram_total_size",
    "tracking_mode", "cpu_utilization_percent", "gpu_utilization_percent", "ram_utilization_percent", "ram_used_gb",
    "on_cloud", "pue", "wue",
)  # fmt: skip
"""The columns of CodeCarbon 3.3, in its order and units: seconds, kg CO2e, W, kWh."""


def emissions_csv(runs: Iterable[Run]) -> str:
    """One row per run; `experiment_id` is the name of its configuration in the JSON report.

    Columns without data stay empty: locations, and emissions without a carbon intensity.
    """
    runs = list(runs)
    configurations = {id(run): result.configuration for result in by_configuration(runs) for run in result.runs}
    names = Counter(run.directory.path.name for run in runs)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for run in runs:
        path = run.directory.path
        unique = {
            "run_id": path.name if names[path.name] == 1 else str(path),
            "experiment_id": configurations[id(run)],
        }
        writer.writerow({name: no_formula(cell) for name, cell in (unique | _row(run)).items()})
    return text.getvalue()


def _row(run: Run) -> dict[str, Any]:
    energy, record, hardware = run.energy, run.record, run.record.hardware
    gpus, co2e = hardware.gpus or [], run.metrics.co2e
    row: dict[str, Any] = {
        "timestamp": record.ended or record.started,
        "project_name": run.directory.path.parent.name,
        "duration": energy.seconds,
        "energy_consumed": energy.joules / JOULES_PER_KWH,
        "country_iso_code": run.settings["country"],
        "os": hardware.system,
        "python_version": record.versions.get("python"),
        "cpu_count": hardware.cores,
        "cpu_model": hardware.cpu,
        "gpu_count": len(gpus),
        "gpu_model": ", ".join(gpus),
        "ram_total_size": hardware.memory_gb,
        "tracking_mode": "process" if "estimate" in energy.sources.values() else "machine",
        "pue": run.settings["pue"],
    }
    for component, column in (("cpu", "cpu"), ("gpu", "gpu"), ("dram", "ram")):
        if component in energy.sources:
            row[f"{column}_energy"] = energy.component(component) / JOULES_PER_KWH
            row[f"{column}_power"] = energy.component(component) / energy.seconds if energy.seconds else ""
    if co2e:
        row["emissions"] = co2e.grams / 1000
        row["emissions_rate"] = co2e.grams / 1000 / energy.seconds if energy.seconds else ""
    return row
