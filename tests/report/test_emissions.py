"""emissions.csv against CodeCarbon itself."""

import csv
import io
from pathlib import Path

import pytest

from greenseg.report.emissions import COLUMNS, emissions_csv
from greenseg.report.reader import read_runs
from tests.runs import energy, record, write


def test_the_columns_are_those_of_codecarbon() -> None:
    data = pytest.importorskip("codecarbon.output_methods.emissions_data", reason="the extra 'carbon' is not installed")
    assert list(data.EmissionsData.__dataclass_fields__) == list(COLUMNS)


def test_a_run_is_a_row_in_its_units(tmp_path: Path) -> None:
    written = record(total=energy(100, gpu_nvml=3.6e6, cpu_rapl=1.8e6, dram_estimate=3600))
    written["metrics"]["co2e"] = {"grams": 85.0, "grams_per_kwh": 56.0, "pue": 1.0}
    run = write(tmp_path / "sweep", written)
    (row,) = csv.DictReader(io.StringIO(emissions_csv(read_runs([run])[0])))
    assert row["project_name"] == "sweep"
    assert row["run_id"] == run.path.name
    for column, value in {
        "duration": 100, "gpu_energy": 1, "cpu_energy": 0.5, "ram_energy": 0.001, "energy_consumed": 1.501,
        "gpu_power": 36_000, "emissions": 0.085, "emissions_rate": 0.00085, "pue": 1,
    }.items():  # fmt: skip
        assert float(row[column]) == pytest.approx(value), column
    assert row["longitude"] == "", "what is not known is empty, not 0"
