"""Strategies for training one network on several devices: their Lightning objects and their restrictions.

Imports nothing heavy, since the command line and YAML files use it, too.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from greenseg.optimizers import OPTIMIZERS


@dataclass(frozen=True)
class Strategy:
    """One strategy.

    Attributes:
        make: takes the number of devices over all nodes and returns the strategy for Lightning's Trainer.
        runs_on: kinds of device that it works on, as `greenseg.machine.gpus.device` names them.
        least: smallest number of devices over all nodes.
        extra: extra of greenseg, and the package in it, that it needs; empty for none.
        optimizes: form of the weights that an optimizer updates: whole weights, `shards` of them, or one `flat` piece
            of all. The optimizer must declare that it works on this form.
        only: setting → valid values with this strategy; other settings may have any value.
    """

    make: Callable[[int], Any]
    runs_on: tuple[str, ...] = ("cpu", "gpu")
    least: int = 1
    extra: str = ""
    optimizes: Literal["whole", "shards", "flat"] = "whole"
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def problem(self, devices: int, optimizer: str, settings: Mapping[str, Any]) -> str | None:
        """A message about the number of devices, the optimizer or settings that do not work with it, or None.

        Args:
            devices: number of devices over all nodes.
            optimizer: name of the optimizer.
            settings: values of the settings in `LIMITED`.
        """
        wrong = ["devices: 1"] if devices < self.least else []
        if self.optimizes != "whole" and self.optimizes not in OPTIMIZERS[optimizer].works_on:
            wrong.append(f"optimizer: {optimizer}")
        wrong += [
            f"{name}: {json.dumps(value).strip(chr(34))}"
            for name, value in settings.items()
            if value not in self.only.get(name, (value,))
        ]
        return f"does not work with {' or '.join(wrong)}" if wrong else None


def _fsdp(devices: int) -> Any:
    # Lightning's FSDPStrategy is FSDP 1, which CPUs lack. This one lets the module's configure_model shard the network.
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
        runs_on=("gpu",),  # Lightning refuses CPUs
        least=2,
        extra="deepspeed",
        optimizes="flat",
        # Half precision fails: it converts the weights, but not the images.
        only={"precision": ("32-true",), "compile": (False,)},
    ),
}
"""Name → strategy."""

LIMITED = tuple(dict.fromkeys(name for known in STRATEGIES.values() for name in known.only))
"""Settings that at least one strategy limits."""

if TYPE_CHECKING:
    Name = str
else:
    Name = Literal[tuple(STRATEGIES)]
