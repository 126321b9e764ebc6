"""The network of an ONNX file from `greenseg export`, on the CPU."""

import importlib.util
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from greenseg.data.grid import FloatArray
from greenseg.errors import UserError
from greenseg.inference import described
from greenseg.inference.predictor import Options
from greenseg.inference.recipe import Recipe

REDUCED = "greenseg.reduce_range"
"""Key in the metadata of a file with 8-bit numbers: whether its weights have 7 bits; `true` or `false`."""


@dataclass
class OnnxPredictor:
    """The network of an ONNX file; see `Predictor`."""

    recipe: Recipe
    identity: str
    name: str
    session: Any = field(repr=False)
    precision: str = described.PRECISION
    device: str = "cpu"
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, path: Path, options: Options) -> Self:
        """The network in an ONNX file.

        Raises:
            UserError: onnxruntime is missing or cannot read the file, the file has no description by greenseg, or it
                cannot run with these options.
        """
        described.check_options(path, options)
        if options.accelerator not in ("auto", "cpu"):
            raise UserError(
                f"--accelerator {options.accelerator}: an ONNX file runs on the CPU; export it with --format torch, or "
                f"predict with the run directory"
            )
        session = session_of(path)
        found = described.read(path, session.get_modelmeta().custom_metadata_map.get(described.KEY, ""))
        return cls(found.recipe, described.digest(path), str(path), session)

    def probabilities(self, images: FloatArray) -> FloatArray:
        return run(self.session, images)


def session_of(path: Path, optimized: Path | None = None) -> Any:
    """A session of onnxruntime on the CPU, with as many threads as torch.

    Args:
        path: the .onnx file.
        optimized: file to write the graph to that runs.

    Raises:
        UserError: onnxruntime is missing or cannot read the file.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise UserError(f"{path}: needs onnxruntime, in the extra 'onnx': pip install 'greenseg[onnx]'")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Idle threads that wait in a busy loop took a quarter of all CPU seconds, and on a busy machine time, too.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only
    if optimized:
        options.optimized_model_filepath = str(optimized)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common class of their own
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path}: onnxruntime cannot read it: {reason}") from None


def run(session: Any, images: FloatArray) -> FloatArray:
    """The output of a session for a batch; see `Predictor.probabilities`."""
    name = session.get_inputs()[0].name
    (found,) = session.run(None, {name: np.ascontiguousarray(images, np.float32)})
    return found  # type: ignore[no-any-return]


_IN_8_BITS = frozenset({"QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger", "QGemm"})
_IN_FLOAT = frozenset({"Conv", "FusedConv", "ConvTranspose", "MatMul", "FusedMatMul", "Gemm", "FusedGemm"})


def int8_share(path: Path) -> float:
    """Share of the convolutions and matrix products in a file that run in 8 bits, by the graph that runs.

    Raises:
        UserError: see `session_of`.
    """
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        session_of(path, optimized)
        kinds = [node.op_type for node in onnx.load(optimized, load_external_data=False).graph.node]
    small, others = (sum(kind in known for kind in kinds) for known in (_IN_8_BITS, _IN_FLOAT))
    return small / max(small + others, 1)
