"""The network of a run, ready for export: it returns probabilities, and copies of it can be compared with it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import nn

from greenseg.compress.program import Probabilities, as_programs_run, difference, example, torch_program
from greenseg.data.grid import FloatArray
from greenseg.inference.described import PRECISION
from greenseg.inference.of_run import RunPredictor
from greenseg.inference.predictor import Options
from greenseg.models import network as networks
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import Record

REMEDY = "use another --format"
"""For a network that a format does not take."""


@dataclass
class Network:
    """A trained network in float32 on the CPU.

    Attributes:
        run: directory of its run.
        predictor: the network as `greenseg predict` runs it.
        record: record of its run.
    """

    run: Path
    predictor: RunPredictor
    record: Record

    @classmethod
    def of(cls, run: Path) -> Self:
        """The network of a run.

        Raises:
            UserError: see `RunPredictor.of`.
        """
        predictor = as_programs_run(RunPredictor.of(run, Options(PRECISION, "cpu")))
        record = RunDirectory(run).record()
        assert record is not None  # it has a network
        return cls(run, predictor, record)

    @property
    def name(self) -> str:
        """Name of the network, such as `mobilenet_v2-unet`."""
        return self.predictor.settings.model

    @property
    def outputs(self) -> int:
        """Its number of outputs."""
        return networks.outputs(len(self.predictor.recipe.classes))

    def example(self) -> torch.Tensor:
        """An input; see `greenseg.compress.program`."""
        return example(self.predictor.recipe)

    def module(self) -> nn.Module:
        """The network with probabilities as output."""
        return Probabilities(self.predictor.module).eval()

    def program(self) -> torch.export.ExportedProgram:
        """The network as a program of torch.export, for batches of any size.

        Raises:
            UserError: torch.export cannot export this network.
        """
        return torch_program(self.predictor, REMEDY)

    def difference(self, run: Callable[[FloatArray], FloatArray]) -> float:
        """The largest difference of an exported network's probabilities from the network's own.

        Args:
            run: the exported network.

        Raises:
            UserError: they differ by more than `ALLOWED`.
        """
        return difference(self.predictor, run, REMEDY)


def versions(*packages: str) -> dict[str, str]:
    """Package → its installed version; packages that are not installed are left out."""
    from importlib import metadata

    found: dict[str, str] = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
