"""Numeric precisions by their Lightning names, and their restrictions. One entry in `PRECISIONS` adds a precision."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal


@dataclass(frozen=True)
class Precision:
    """One precision.

    Attributes:
        fails_on: kind of device → why the precision does not work there.
        package: additional package that it needs; empty for none.
        scales_gradients: it scales gradients, so that small ones do not vanish in half precision. This would scale
            second derivatives, too.
        bfloat16_on_cpu: operations that a CPU computes in bfloat16: `all`, those of autocast (`mixed`), or none ("").
    """

    fails_on: Mapping[str, str] = field(default_factory=dict)
    package: str = ""
    scales_gradients: bool = False
    bfloat16_on_cpu: Literal["", "mixed", "all"] = ""


_TRANSFORMER_ENGINE = Precision(
    fails_on={"cpu": "needs a GPU", "mps": "needs an NVIDIA GPU"}, package="transformer_engine"
)

PRECISIONS: dict[str, Precision] = {
    "32-true": Precision(),
    "16-mixed": Precision(scales_gradients=True, bfloat16_on_cpu="mixed"),  # Lightning runs it as bf16-mixed on a CPU
    "bf16-mixed": Precision(bfloat16_on_cpu="mixed"),
    "16-true": Precision(fails_on={"cpu": "is slow on a CPU and ends in NaN; use 16-mixed or bf16-true"}),
    "bf16-true": Precision(bfloat16_on_cpu="all"),
    "64-true": Precision(fails_on={"mps": "needs 64-bit numbers, which Apple GPUs lack"}),
    "transformer-engine": _TRANSFORMER_ENGINE,
    "transformer-engine-float16": _TRANSFORMER_ENGINE,
}
"""Name → precision."""

if TYPE_CHECKING:
    from lightning_fabric.plugins.precision.precision import _PRECISION_INPUT_STR

    Name = _PRECISION_INPUT_STR
else:
    Name = Literal[tuple(PRECISIONS)]
