"""Hydra: `python hydra_app.py --multirun +directory=A,B,…`."""

from typing import Any

import hydra

from benchmarks.peers.fit import fit


def main(config: Any) -> None:
    """One job of the multirun."""
    fit(config.directory)


if __name__ == "__main__":
    hydra.main(version_base=None, config_path=None)(main)()
