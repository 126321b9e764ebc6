"""Gradient checkpointing: less memory, for more energy.

Only the input of each network block is kept for the backward pass, which recomputes the rest (Chen et al. 2016,
arXiv:1604.06174).
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    apply_activation_checkpointing,
    checkpoint_wrapper,
)
from torch.nn.modules.batchnorm import _BatchNorm

_LISTS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def apply(network: nn.Module) -> None:
    """Apply checkpointing to the blocks of a network. Gradients, statistics and parameter names stay the same."""
    chosen = {id(block) for block in blocks(network)}
    apply_activation_checkpointing(network, _forgetful, check_fn=lambda module: id(module) in chosen)


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The blocks of a network: modules with several layers that are elements of a list or have a sibling of their kind.

    A list of such modules is not a block. Modules inside a block are part of it.
    """
    yield from _among(list(network.children()), listed=isinstance(network, nn.Sequential))


def _among(siblings: list[nn.Module], listed: bool) -> Iterator[nn.Module]:
    alike = Counter(map(type, siblings))
    for module in siblings:
        children = list(module.children())
        is_list = type(module) in _LISTS
        if is_list and any(list(child.children()) for child in children):
            yield from _among(children, listed=True)
        elif children and (listed or (alike[type(module)] > 1 and not is_list)):
            yield module
        else:
            yield from _among(children, listed=False)


def _forgetful(block: nn.Module) -> nn.Module:
    def contexts() -> tuple[Any, Any]:
        return contextlib.nullcontext(), _statistics_counted(block)

    return checkpoint_wrapper(block, context_fn=contexts)


@contextlib.contextmanager
def _statistics_counted(block: nn.Module) -> Iterator[None]:
    """Disable the statistics of batch normalisation during recomputation, since they already include the batch."""
    counting = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    before = [(module.momentum, module.num_batches_tracked) for module in counting]
    for module in counting:
        module.momentum, module.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for module, (momentum, batches) in zip(counting, before, strict=True):
            module.momentum, module.num_batches_tracked = momentum, batches
