"""The network of a torch program from `greenseg export`."""

import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import nn
from torch.export.passes import move_to_device_pass

from greenseg.data.grid import FloatArray
from greenseg.errors import UserError
from greenseg.inference import described
from greenseg.inference.of_run import device_for
from greenseg.inference.predictor import Options
from greenseg.inference.recipe import Recipe


@dataclass
class TorchPredictor:
    """The network of a torch program; see `Predictor`."""

    recipe: Recipe
    identity: str
    name: str
    device: str
    module: nn.Module = field(repr=False)
    precision: str = described.PRECISION
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, path: Path, options: Options) -> Self:
        """The network in a torch program.

        Raises:
            UserError: torch cannot read the file, it has no description by greenseg, or it cannot run with these
                options.
        """
        described.check_options(path, options)
        device = device_for(options.accelerator)
        program, text = program_of(path)
        found = described.read(path, text)
        if device.type != "cpu":
            program = move_to_device_pass(program, device)
        return cls(found.recipe, described.digest(path), str(path), device.type, program.module())

    def probabilities(self, images: FloatArray) -> FloatArray:
        return run(self.module, images, torch.device(self.device))


def program_of(path: Path) -> tuple[torch.export.ExportedProgram, str]:
    """The program in a file, and its description; empty if it has none.

    Raises:
        UserError: torch cannot read the file.
    """
    if not zipfile.is_zipfile(path):  # the message of torch names neither file nor problem
        raise UserError(f"{path}: is not a program of torch.export, or is damaged")
    extra = {described.FILE: ""}
    try:
        program = torch.export.load(path, extra_files=extra)
    except Exception as error:  # of many kinds, from several parsers
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise UserError(f"{path}: torch cannot read it: {reason}") from None
    return program, extra[described.FILE]


def run(module: nn.Module, images: FloatArray, device: torch.device) -> FloatArray:
    """The output of a module for a batch; see `Predictor.probabilities`."""
    with torch.inference_mode():
        found = module(torch.from_numpy(np.ascontiguousarray(images, np.float32)).to(device))
    return found.cpu().numpy()  # type: ignore[no-any-return]
