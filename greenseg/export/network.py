"""The network of a run, ready for export: it returns probabilities, and copies of it can be compared with it."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import nn

from greenseg.data.grid import FloatArray
from greenseg.errors import UserError
from greenseg.inference.described import PRECISION
from greenseg.inference.of_run import RunPredictor
from greenseg.inference.predictor import Options
from greenseg.models import network as networks
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import Record

ALLOWED = 1e-4
"""Largest difference of probabilities between an exported network and its original."""

BATCHES = (1, 3)
"""Sizes of the batches that both are compared on."""


class Probabilities(nn.Module):
    """A network that returns probabilities instead of logits: sigmoid of a single output, softmax of several."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images)
        return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)


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
        predictor = RunPredictor.of(run, Options(PRECISION, "cpu"))
        # As exported programs run: other kernels round differently, and ENet's pooling turns that into other pixels.
        predictor.module.to(memory_format=torch.contiguous_format)
        predictor.settings = predictor.settings.model_copy(update={"channels_last": False})
        record = RunDirectory(run).record()
        assert record is not None  # it has a network
        return cls(run, predictor, record)

    @property
    def name(self) -> str:
        """Name of the network, such as `mobilenet_v2-unet`."""
        return self.predictor.settings.model

    @property
    def bytes(self) -> int:
        """Size of its weights."""
        state = self.predictor.module.state_dict()
        return sum(value.numel() * value.element_size() for value in state.values())

    @property
    def outputs(self) -> int:
        """Its number of outputs."""
        return networks.outputs(len(self.predictor.recipe.classes))

    def example(self, batch: int = 2) -> torch.Tensor:
        """An input: float32 [batch, channels, image_size, image_size]."""
        recipe = self.predictor.recipe
        return torch.rand(
            (batch, recipe.channels, recipe.image_size, recipe.image_size), generator=torch.Generator().manual_seed(0)
        )

    def module(self) -> nn.Module:
        """The network with probabilities as output."""
        return Probabilities(self.predictor.module).eval()

    def program(self) -> torch.export.ExportedProgram:
        """The network as a program of torch.export, for batches of any size.

        Raises:
            UserError: torch.export cannot export this network.
        """
        module = self.module()
        dynamic = ({0: torch.export.Dim("batch", min=1)},)
        try:
            with torch.no_grad(), warnings.catch_warnings(action="ignore"):
                return torch.export.export(module, (self.example(),), dynamic_shapes=dynamic, strict=False)
        except Exception as error:  # of many kinds
            raise refusal(f"{self.name}: torch.export cannot export this network", error) from error

    def difference(self, run: Callable[[FloatArray], FloatArray]) -> float:
        """The largest difference of an exported network's probabilities from the network's own.

        They are compared on noise, and on bright discs in a dark background like a slice of a head.

        Args:
            run: the exported network.

        Raises:
            UserError: they differ by more than `ALLOWED`.
        """
        largest = 0.0
        for batch in BATCHES:
            noise = self.example(batch).numpy()
            for images in (noise, _disc(noise)):
                ours, theirs = self.predictor.probabilities(images), run(images)
                here = float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else np.inf
                if not here <= ALLOWED:  # also if it is not a number
                    raise UserError(
                        f"{self.name}: the exported network differs from the original by {here:.2g} (allowed: "
                        f"{ALLOWED:g}) in a batch of {batch}; nothing was written. Use another --format"
                    )
                largest = max(largest, here)
        return largest


def refusal(what: str, error: Exception) -> UserError:
    """The error for a network that a library cannot export, with the first line of the library's message."""
    reason = next(iter(str(error).strip().splitlines()), "")
    return UserError(f"{what}: {type(error).__name__}: {reason}; use another --format")


def _disc(noise: FloatArray) -> FloatArray:
    size = noise.shape[-1]
    rows, columns = np.ogrid[:size, :size]
    distance = np.hypot(rows - size * 0.45, columns - size * 0.55) / (size * 0.35)
    return np.asarray(np.clip(1 - distance**2, 0, 1) * (0.7 + 0.3 * noise), np.float32)


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
