"""Prints the validation Dice, the joules of training and the joules of inference, and writes them as JSON.

    python3 figures.py RUN PREDICTIONS JSON

RUN is the run directory, PREDICTIONS the file `predictions.jsonl` of `greenseg predict`. It uses the standard library
alone and starts at once: what it spends would count as inference.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Joules = dict[str, dict[str, float]]
"""Component → source → joules."""


def total(energies: Iterable[Mapping[str, Any]]) -> Joules:
    """The sum of energies, by component and source."""
    found: Joules = {}
    for energy in energies:
        for component, by_source in energy["joules"].items():
            of_component = found.setdefault(component, {})
            for source, joules in by_source.items():
                of_component[source] = of_component.get(source, 0.0) + joules
    return found


def text(joules: Joules) -> str:
    """Joules for people, with their sources."""
    parts = [
        f"{component} {value:,.1f} J ({source})" for component, each in joules.items() for source, value in each.items()
    ]
    whole = sum(value for each in joules.values() for value in each.values())
    return f"{whole:,.1f} J: {', '.join(parts)}" if parts else "unknown"


def main(run: Path, predictions: Path, out: Path) -> None:
    """Print the figures of a run and of its predictions, and write them to a file if its folder is writable."""
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in predictions.read_text(encoding="utf-8").split("\n")[:-1]]
    training = total([record["energy"]["total"]]) if record.get("energy") else {}
    inference = total(line["energy"] for line in lines if "energy" in line)
    dice = record.get("metrics", {}).get("dice")
    volumes = sum("mask" in line for line in lines)
    print(f"Dice in validation   {'unknown' if dice is None else f'{dice:.4f}'}")
    print(f"joules of training   {text(training)}")
    print(f"joules of inference  {text(inference)}, for {volumes} {'volume' if volumes == 1 else 'volumes'}")
    figures = {"dice": dice, "training": training, "inference": inference, "volumes": volumes}
    try:
        out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        print(f"note: not written to {out}: {error.strerror}", file=sys.stderr)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
