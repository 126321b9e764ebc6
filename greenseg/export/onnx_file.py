"""Export as ONNX."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

import greenseg
from greenseg.errors import UserError
from greenseg.export import description
from greenseg.export.beside import write_beside
from greenseg.export.formats import Request
from greenseg.export.network import Network, refusal
from greenseg.inference import described
from greenseg.inference.of_onnx import run, session_of

OPSET = 18
"""The version of ONNX's operators: the one that torch.onnx writes without a conversion."""

_LARGEST = 2_000_000_000  # bytes; protobuf has 31 bits for the size of a message


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without the exporter's remarks on its own work; an error is an exception."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def write(request: Request, out: Path) -> list[str]:
    """Write the network of a run as an .onnx file; see `Write` in `greenseg.export.formats`.

    Raises:
        UserError: the run has no network, torch.onnx cannot export it, it is too large for a single file, or the copy
            differs from it.
    """
    network = Network.of(request.run)
    if network.bytes > _LARGEST:
        raise UserError(
            f"{network.name}: has {network.bytes / 1e9:.1f} GB of weights, and a single ONNX file holds 2 GB; use "
            f"--format torch"
        )
    value = description.description(network)
    program = network.program()
    try:
        with _silence():
            made = torch.onnx.export(
                program,
                (),
                dynamo=True,
                input_names=["images"],
                output_names=["probabilities"],
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:  # of many kinds
        raise refusal(f"{network.name}: torch.onnx cannot export this network", error) from error
    assert made is not None  # as dynamo=True promises
    made.model.metadata_props[described.KEY] = description.as_text(value)
    made.model.producer_name, made.model.producer_version = "greenseg", greenseg.__version__
    made.save(out, external_data=False)
    session = session_of(out)
    difference = network.difference(lambda images: run(session, images))
    value["file"] = {
        "name": out.name,
        "sha256": described.digest(out),
        "opset": made.model.opset_imports[""],
        "ir_version": made.model.ir_version,
    }
    value["check"] = description.checked(difference, "the file, in onnxruntime on the CPU")
    loading = f"It has opset {value['file']['opset']} and runs in onnxruntime and other engines for ONNX."
    return write_beside(out, value, network, loading)
