"""How several devices train one network together: what each strategy is to Lightning, and what it does not go with.

Imports nothing heavy: command line and YAML ask it, too.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Name = Literal["auto", "ddp", "ddp_find_unused_parameters_true", "fsdp", "deepspeed_stage_2"]

_HALF = ("16-mixed", "bf16-mixed", "16-true", "bf16-true")
_TRANSFORMER_ENGINE = ("transformer-engine", "transformer-engine-float16")


@dataclass(frozen=True)
class Strategy:
    """One of them.

    Attributes:
        make: given the number of devices over all nodes, returns what Lightning's Trainer takes.
        runs_on: kinds of device that it works on, as `greenseg.sweep.machine.device` names them.
        least: number of devices over all nodes that it needs.
        extra: of greenseg, and the package in it, without which it is not there; empty for none.
        refuses: setting → values that it does not go with.
    """

    make: Callable[[int], Any]
    runs_on: tuple[str, ...] = ("cpu", "gpu")
    least: int = 1
    extra: str = ""
    refuses: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def problem(self, devices: int, settings: Mapping[str, Any]) -> str | None:
        """What it does not go with: the number of devices, or any of these settings; None where all is well."""
        wrong = [f"{name}: {json.dumps(value).strip(chr(34))}" for name, value in settings.items()
                 if value in self.refuses.get(name, ())]  # fmt: skip
        if devices < self.least:
            wrong.insert(0, "devices: 1")
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


STRATEGIES: dict[Name, Strategy] = {
    "auto": Strategy(lambda devices: "auto", ("cpu", "gpu", "mps")),
    "ddp": Strategy(lambda devices: "ddp"),
    "ddp_find_unused_parameters_true": Strategy(lambda devices: "ddp_find_unused_parameters_true"),
    "fsdp": Strategy(
        _fsdp,
        least=2,
        refuses={
            "precision": ("16-mixed", "64-true", *_TRANSFORMER_ENGINE),
            # These compute with tensors that are not sharded beside such that are; AdamW in 8 bit has kernels of its
            # own for whole tensors, and sophia needs second derivatives.
            "optimizer": ("adafactor", "novograd", "sophia", "adamw-8bit"),
            "compile": (True,),
        },
    ),
    "deepspeed_stage_2": Strategy(
        _zero2,
        runs_on=("gpu",),  # Lightning's refuses CPUs
        least=2,
        extra="deepspeed",
        refuses={
            # Half precision fails: it makes the weights half as wide, and not the images.
            "precision": (*_HALF, "64-true", *_TRANSFORMER_ENGINE),
            # It hands an optimizer one flat piece of all weights: no matrices and no layers, and no other methods than
            # a step.
            "optimizer": ("adafactor", "novograd", "muon", "sophia", "schedule-free-adamw", "adamw-8bit"),
            "compile": (True,),
        },
    ),
}
assert tuple(STRATEGIES) == get_args(Name)
