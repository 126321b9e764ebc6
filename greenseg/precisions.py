"""Numeric precisions, as Lightning names them, and where each works. One entry in `PRECISIONS` adds one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal


@dataclass(frozen=True)
class Precision:
    """One of them.

    Attributes:
        fails_on: kind of device → why it does not work there.
        package: that it needs beside those of greenseg; empty for none.
        scales_gradients: so that small ones do not vanish in half precision; second derivatives would be scaled, too.
        bfloat16_on_cpu: what a CPU computes in bfloat16: `all`, or what autocast (`mixed`) takes; empty for nothing.
    """

    fails_on: Mapping[str, str] = field(default_factory=dict)
    package: str = ""
    scales_gradients: bool = False
    bfloat16_on_cpu: Literal["", "mixed", "all"] = ""


_TRANSFORMER_ENGINE = Precision(
    fails_on={"cpu": "needs a GPU", "mps": "needs a GPU of NVIDIA"}, package="transformer_engine"
)

PRECISIONS: dict[str, Precision] = {
    "32-true": Precision(),
    "16-mixed": Precision(scales_gradients=True, bfloat16_on_cpu="mixed"),  # Lightning's is bf16-mixed on a CPU
    "bf16-mixed": Precision(bfloat16_on_cpu="mixed"),
    "16-true": Precision(fails_on={"cpu": "on a CPU it is slow, and ends in NaN; 16-mixed and bf16-true work"}),
    "bf16-true": Precision(bfloat16_on_cpu="all"),
    "64-true": Precision(fails_on={"mps": "Apple's GPU has no 64-bit numbers"}),
    "transformer-engine": _TRANSFORMER_ENGINE,
    "transformer-engine-float16": _TRANSFORMER_ENGINE,
}
"""Name → precision."""

if TYPE_CHECKING:
    from lightning_fabric.plugins.precision.precision import _PRECISION_INPUT_STR

    Name = _PRECISION_INPUT_STR
else:
    Name = Literal[tuple(PRECISIONS)]
