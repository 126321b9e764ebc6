"""Engines and numbers of prediction, and their restrictions; one entry in `RUNTIMES` adds an engine. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

Quantization = Literal["none", "int8", "bf16", "fp16"]
QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)

RuntimeOrAuto = Literal["auto", "torch", "torch-compile", "onnxruntime", "openvino"]


@dataclass(frozen=True)
class Runtime:
    """An engine that predicts with a trained network.

    Attributes:
        refuses: quantization → why the engine does not have it.
        refuses_on: kind of device → quantization → why the engine does not have it there.
        packages: packages that it needs; empty for those of greenseg.
        on_cpu: it predicts on the CPU, whatever device the network was trained on.
        files: names of the files of the network, in `checkpoints/` of a run.
    """

    refuses: Mapping[str, str] = field(default_factory=dict)
    refuses_on: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    on_cpu: bool = False
    files: tuple[str, ...] = ("best.ckpt",)


_TORCH = Runtime(
    {"int8": "torch predicts with int8 no faster than with float32; use runtime: openvino or onnxruntime"},
    {"cpu": {"fp16": "torch computes it slowly on a CPU, and ends in NaN; use bf16, or runtime: openvino"}},
)

RUNTIMES: dict[str, Runtime] = {
    "torch": _TORCH,
    "torch-compile": _TORCH,
    "onnxruntime": Runtime(
        {
            "bf16": "onnxruntime has no convolutions in bfloat16 on a CPU; use runtime: torch or openvino",
            "fp16": "onnxruntime has no convolutions in float16 on a CPU; use runtime: openvino",
        },
        packages=("onnx", "onnxscript", "onnxruntime"),
        on_cpu=True,
        files=("network.onnx",),
    ),
    "openvino": Runtime(
        packages=("onnx", "onnxscript", "openvino", "nncf"), on_cpu=True, files=("network.xml", "network.bin")
    ),
}
"""Name → engine."""

DEFAULT_RUNTIME: Mapping[str, str] = {"none": "torch", "bf16": "torch", "fp16": "torch", "int8": "openvino"}
"""Quantization → the engine for `runtime: auto`."""

PRECISION: Mapping[str, str] = {"none": "32-true", "bf16": "bf16-true", "fp16": "16-true", "int8": "int8"}
"""Quantization → the numeric precision of prediction, by its Lightning name where it has one."""

NEUTRAL_RUNTIME = "torch"


def engine(runtime: str, quantize: str) -> str:
    """The engine for a value of `runtime`, which may be `auto`."""
    return DEFAULT_RUNTIME[quantize] if runtime == "auto" else runtime


def converted(quantize: str, runtime: str) -> bool:
    """Whether a run with these settings converts the network of another one."""
    return quantize != "none" or runtime != NEUTRAL_RUNTIME
