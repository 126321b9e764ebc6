"""How several devices train one network together: what each strategy is to Lightning, and what it does not go with.

Imports nothing heavy: command line and YAML ask it, too.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from greenseg.optimizers import OPTIMIZERS


@dataclass(frozen=True)
class Strategy:
    """One of them.

    Attributes:
        make: given the number of devices over all nodes, returns what Lightning's Trainer takes.
        runs_on: kinds of device that it works on, as `greenseg.machine.gpus.device` names them.
        least: number of devices over all nodes that it needs.
        extra: of greenseg, and the package in it, without which it is not there; empty for none.
        optimizes: what an optimizer gets to update: whole weights, `shards` of them, or one `flat` piece of all. An
            optimizer must say that it works on it.
        only: setting → the values that it goes with; settings that are not named may have any.
    """

    make: Callable[[int], Any]
    runs_on: tuple[str, ...] = ("cpu", "gpu")
    least: int = 1
    extra: str = ""
    optimizes: Literal["whole", "shards", "flat"] = "whole"
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def problem(self, devices: int, optimizer: str, settings: Mapping[str, Any]) -> str | None:
        """What it does not go with: the number of devices, the optimizer, or a setting; None where all is well.

        Args:
            devices: over all nodes.
            optimizer: its name.
            settings: values of those that some strategy limits, see `LIMITED`.
        """
        wrong = ["devices: 1"] if devices < self.least else []
        if self.optimizes != "whole" and self.optimizes not in OPTIMIZERS[optimizer].works_on:
            wrong.append(f"optimizer: {optimizer}")
        wrong += [
            f"{name}: {json.dumps(value).strip(chr(34))}"
            for name, value in settings.items()
            if value not in self.only.get(name, (value,))
        ]
        return f"does not go with {' or '.join(wrong)}" if wrong else None


def _fsdp(devices: int) -> Any:
    # Lightning's FSDPStrategy is FSDP 1, which no CPU has. This one shards as the module's configure_model says.
    from pytorch_lightning.strategies import ModelParallelStrategy

    return ModelParallelStrategy(
        data_parallel_size=devices,
        tensor_parallel_size=1,
        save_distributed_checkpoint=False,  # one file, which one process can read
    )


def _zero2(devices: int) -> Any:
    from greenseg.strategies.zero import Zero2

    return Zero2()


STRATEGIES: dict[str, Strategy] = {
    "auto": Strategy(lambda devices: "auto", ("cpu", "gpu", "mps")),
    "ddp": Strategy(lambda devices: "ddp"),
    "ddp_find_unused_parameters_true": Strategy(lambda devices: "ddp_find_unused_parameters_true"),
    "fsdp": Strategy(
        _fsdp,
        least=2,
        optimizes="shards",
        only={"precision": ("32-true", "bf16-mixed", "16-true", "bf16-true"), "compile": (False,)},
    ),
    "deepspeed_stage_2": Strategy(
        _zero2,
        runs_on=("gpu",),  # Lightning's refuses CPUs
        least=2,
        extra="deepspeed",
        optimizes="flat",
        # Half precision fails: it makes the weights half as wide, and not the images.
        only={"precision": ("32-true",), "compile": (False,)},
    ),
}
"""Name → strategy."""

LIMITED = tuple(dict.fromkeys(name for known in STRATEGIES.values() for name in known.only))
"""Settings that some strategy limits."""

if TYPE_CHECKING:
    Name = str
else:
    Name = Literal[tuple(STRATEGIES)]
