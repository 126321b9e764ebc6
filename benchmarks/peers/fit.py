"""The function that all peers call: it trains a run with records and energy, as in a sweep."""

from pathlib import Path


def fit(directory: str) -> None:
    """Train the run in a directory with a config.yaml, in this process."""
    from greenseg.energy import EnergyMeter
    from greenseg.runs.directory import RunDirectory
    from greenseg.settings import Settings, read_config
    from greenseg.training.run import train

    run = RunDirectory(Path(directory))
    train(run, Settings.of(read_config(run.path / "config.yaml")), EnergyMeter(), 0)
