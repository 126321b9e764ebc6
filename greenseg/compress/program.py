"""A trained network as a program of torch.export and of ONNX, and the comparison of copies with their original."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from greenseg.data.grid import FloatArray
from greenseg.errors import UserError
from greenseg.inference.of_run import RunPredictor
from greenseg.inference.recipe import Recipe

ALLOWED = 1e-4
"""Largest difference of probabilities between a copy of a network in float32 and its original."""

BATCHES = (1, 3)
"""Sizes of the batches that both are compared on."""

OPSET = 18
"""The version of ONNX's operators: the one that torch.onnx writes without a conversion."""

_LARGEST = 2_000_000_000  # bytes; protobuf has 31 bits for the size of a message

INPUT, OUTPUT = "images", "probabilities"
"""Names of the input and the output of an ONNX program."""


class Probabilities(nn.Module):
    """A network that returns probabilities instead of logits: sigmoid of a single output, softmax of several."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images)
        return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)


def as_programs_run(predictor: RunPredictor) -> RunPredictor:
    """Change a predictor in place to the memory format of exported programs.

    Other kernels round differently, and ENet's pooling turns that into other pixels.
    """
    predictor.module.to(memory_format=torch.contiguous_format)
    predictor.settings = predictor.settings.model_copy(update={"channels_last": False})
    return predictor


def example(recipe: Recipe, batch: int = 2) -> torch.Tensor:
    """Noise as an input: float32 [batch, channels, image_size, image_size]."""
    shape = (batch, recipe.channels, recipe.image_size, recipe.image_size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def torch_program(predictor: RunPredictor, remedy: str) -> torch.export.ExportedProgram:
    """A network with probabilities as output, as a program of torch.export for batches of any size.

    Args:
        predictor: the network in float32 on the CPU, see `as_programs_run`.
        remedy: text for the user if it does not work.

    Raises:
        UserError: torch.export cannot export this network.
    """
    module = Probabilities(predictor.module).eval()
    dynamic = ({0: torch.export.Dim("batch", min=1)},)
    try:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            images = example(predictor.recipe)
            return torch.export.export(module, (images,), dynamic_shapes=dynamic, strict=False)
    except Exception as error:  # of many kinds
        raise refusal(f"{predictor.settings.model}: torch.export cannot export this network", error, remedy) from error


def onnx_program(predictor: RunPredictor, remedy: str) -> torch.onnx.ONNXProgram:
    """A network with probabilities as output, as a program of ONNX for batches of any size.

    Args:
        predictor: the network in float32 on the CPU, see `as_programs_run`.
        remedy: text for the user if it does not work.

    Raises:
        UserError: torch.export or torch.onnx cannot export this network, or it is too large for a single file.
    """
    name, weights = predictor.settings.model, predictor.module.state_dict().values()
    if (size := sum(value.numel() * value.element_size() for value in weights)) > _LARGEST:
        raise UserError(f"{name}: has {size / 1e9:.1f} GB of weights, and a single ONNX file holds 2 GB; {remedy}")
    program = torch_program(predictor, remedy)
    try:
        with silence("torch.onnx", "onnx_ir", "onnxscript"):
            made = torch.onnx.export(
                program,
                (),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:  # of many kinds
        raise refusal(f"{name}: torch.onnx cannot export this network", error, remedy) from error
    assert made is not None  # as dynamo=True promises
    return made


def difference(predictor: RunPredictor, run: Callable[[FloatArray], FloatArray], remedy: str) -> float:
    """The largest difference of a copy's probabilities from the network's own, on the batches of `probes`.

    Args:
        predictor: the network.
        run: its copy.
        remedy: text for the user if they differ too much.

    Raises:
        UserError: they differ by more than `ALLOWED`.
    """
    largest = 0.0
    for images in probes(predictor.recipe):
        ours, theirs = predictor.probabilities(images), run(images)
        here = float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else np.inf
        if not here <= ALLOWED:  # also if it is not a number
            raise UserError(
                f"{predictor.settings.model}: the exported network differs from the original by {here:.2g} (allowed: "
                f"{ALLOWED:g}) in a batch of {len(images)}; nothing was written. {remedy[:1].upper()}{remedy[1:]}"
            )
        largest = max(largest, here)
    return largest


def probes(recipe: Recipe) -> Iterator[FloatArray]:
    """Batches to compare networks on: noise, and bright discs in a dark background like a slice of a head."""
    for batch in BATCHES:
        noise = example(recipe, batch).numpy()
        yield noise
        yield _disc(noise)


def _disc(noise: FloatArray) -> FloatArray:
    size = noise.shape[-1]
    rows, columns = np.ogrid[:size, :size]
    distance = np.hypot(rows - size * 0.45, columns - size * 0.55) / (size * 0.35)
    return np.asarray(np.clip(1 - distance**2, 0, 1) * (0.7 + 0.3 * noise), np.float32)


def refusal(what: str, error: Exception, remedy: str) -> UserError:
    """The error for a network that a library cannot export, with the first line of the library's message."""
    reason = next(iter(str(error).strip().splitlines()), "")
    return UserError(f"{what}: {type(error).__name__}: {reason}; {remedy}")


@contextlib.contextmanager
def silence(*loggers: str) -> Iterator[None]:
    """Without the remarks of libraries on their own work: of these loggers, warnings and standard output.

    An error is an exception.
    """
    found = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in found]
    handlers = logging.root.handlers[:]  # `logging.info` adds one if there is none
    for logger in found:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.root.handlers[:] = handlers
        for logger, level in zip(found, levels, strict=True):
            logger.setLevel(level)
