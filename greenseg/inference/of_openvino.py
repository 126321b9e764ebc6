"""A network in a file of OpenVINO, on the CPU."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from greenseg.data.grid import FloatArray
from greenseg.errors import UserError
from greenseg.machine import cpu

_HINTS = {"none": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
"""Quantization → numbers of the layers that are not in 8 bits. OpenVINO's own default is bf16 on some CPUs."""

_PRECISIONS = {"f32": "32-true", "bf16": "bf16-true", "f16": "16-true"}
"""Numbers → their Lightning name."""

_LAYERS = frozenset({"Convolution", "Deconvolution", "GroupConvolution", "FullyConnected", "MatMul"})
"""Kinds of layers with nearly all multiply-accumulates of a network, as OpenVINO names them."""


class Network:
    """A network in a file of OpenVINO.

    Args:
        path: the .xml file; a .bin file is beside it.
        quantize: the numbers of the network.

    Attributes:
        precision: the numeric precision of most layers that are not in 8 bits, by its Lightning name, as they run.
        int8_share: share of the convolutions and matrix products that run in 8 bits.

    Raises:
        UserError: OpenVINO cannot read the file.
    """

    def __init__(self, path: Path, quantize: str) -> None:
        core = cpu.openvino_core()
        options = {
            "INFERENCE_PRECISION_HINT": _HINTS[quantize],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",  # one stream with all threads
        }
        try:
            compiled = core.compile_model(core.read_model(path), "CPU", options)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"{path}: OpenVINO cannot read it: {reason}") from None
        self._request = compiled.create_infer_request()
        self.precision, self.int8_share = _ran(compiled)

    def probabilities(self, images: FloatArray) -> FloatArray:
        """See `Predictor.probabilities`."""
        found = self._request.infer({0: np.ascontiguousarray(images, np.float32)}, share_inputs=True)
        return np.array(found[0], np.float32)


def _ran(compiled: Any) -> tuple[str, float]:
    """The precision of most layers that are not in 8 bits, and the share of those that are; by the graph that runs."""
    kinds = [str(_about(layer, "runtimePrecision")) for layer in compiled.get_runtime_model().get_ops()
             if str(_about(layer, "layerType")) in _LAYERS]  # fmt: skip
    small = [kind for kind in kinds if kind in ("u8", "i8")]
    rest = [kind for kind in kinds if kind in _PRECISIONS] or ["f32"]
    most = max(sorted(set(rest)), key=rest.count)
    return _PRECISIONS[most], len(small) / max(len(kinds), 1)


def _about(layer: Any, name: str) -> Any:
    value = layer.get_rt_info()[name]
    return value.astype(str)
