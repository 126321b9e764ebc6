"""The shape of a pruned network: which channels of the dense network it keeps. Needs no library for pruning."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

_WRAPPED = "_checkpoint_wrapped_module."  # of gradient checkpointing; parameter names have no trace of it, either


@dataclass(frozen=True)
class Kept:
    """Kept channels of a layer, as ascending indices into those of the dense network; None keeps all.

    Attributes:
        inputs: of convolutions and linear layers.
        outputs: of any layer; normalisations, PReLU and parameters of their own have only these.
    """

    inputs: tuple[int, ...] | None = None
    outputs: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Shape:
    """The shape of a pruned network.

    Attributes:
        layers: name of a layer, or of a parameter outside layers → its kept channels; others are dense.
    """

    layers: Mapping[str, Kept]

    def to_json(self) -> dict[str, Any]:
        """As JSON: {name: {"inputs": [indices], "outputs": [indices]}}; `from_json` reads it."""
        return {
            name: {side: list(channels) for side, channels in vars(kept).items() if channels is not None}
            for name, kept in self.layers.items()
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The shape from the value of `to_json`.

        Raises:
            ValueError: the value is damaged; the message names the layer.
        """
        if not isinstance(value, dict):
            raise ValueError("the shape of a pruned network must be a mapping of layers")
        layers = {}
        for name, sides in value.items():
            if not (isinstance(sides, dict) and {*sides} <= {"inputs", "outputs"} and all(map(_valid, sides.values()))):
                raise ValueError(f"{name}: 'inputs' and 'outputs' must be ascending channel numbers")
            layers[name] = Kept(**{side: tuple(channels) for side, channels in sides.items()})
        return cls(layers)


def _valid(channels: Any) -> bool:
    return (
        isinstance(channels, list)
        and len(channels) > 0
        and all(type(channel) is int and channel >= 0 for channel in channels)
        and all(one < other for one, other in pairwise(channels))
    )


def slim(network: nn.Module, shape: Shape) -> None:
    """Cut a dense network in place to a shape. The kept channels keep their weights; the attributes of layers follow.

    Optimizers and compiled code of the dense network must not be used any more.

    Raises:
        ValueError: the shape is not that of this network; the network may be cut in part.
    """
    layers = dict(named_layers(network))
    parameters = {name: (module, own) for name, module, own in loose_parameters(network)}
    for name, kept in shape.layers.items():
        try:
            if name in parameters and kept.outputs is not None and kept.inputs is None:
                module, own = parameters[name]
                _cut(module, own, _channel_dimension(getattr(module, own)), kept.outputs)
            else:
                module = layers[name]
                next(cut for kinds, cut in _CUTS.items() if isinstance(module, kinds))(module, kept)
        except (KeyError, IndexError, TypeError, ValueError, StopIteration) as error:
            raise ValueError(f"{name}: this shape is not one of this network") from error


def named_layers(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules of all layers that can be cut; names are the same with gradient checkpointing."""
    for name, module in network.named_modules():
        if isinstance(module, LAYERS):
            yield name.replace(_WRAPPED, ""), module


def loose_parameters(network: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Name, module and name in the module of each parameter outside layers that has one dimension of channels."""
    for prefix, module in network.named_modules():
        if isinstance(module, LAYERS):
            continue
        for own, parameter in module._parameters.items():
            if parameter is not None and sum(size > 1 for size in parameter.shape) == 1:
                yield ".".join(filter(None, [prefix, own])).replace(_WRAPPED, ""), module, own


def _channel_dimension(parameter: torch.Tensor) -> int:
    return next(dimension for dimension, size in enumerate(parameter.shape) if size > 1)


def _convolution(layer: _ConvNd, kept: Kept) -> None:
    """Each group of a grouped convolution keeps as many channels as the others, or goes as a whole."""
    groups, sizes = layer.groups, (layer.in_channels, layer.out_channels)
    sides = [_all(channels, size) for channels, size in zip((kept.inputs, kept.outputs), sizes, strict=True)]
    # Channels in each group, as positions in it; groups that lost their channels are gone.
    blocks = [_blocks(side, size // groups, groups) for side, size in zip(sides, sizes, strict=True)]
    present = [[number for number, block in enumerate(side) if block] for side in blocks]
    if present[0] != present[1] or any(len({len(block) for block in side if block}) != 1 for side in blocks):
        raise ValueError("groups of different sizes")
    # Weights are [outputs, inputs / groups, …], but [inputs, outputs / groups, …] if transposed.
    row, column = (0, 1) if layer.transposed else (1, 0)
    rows = torch.tensor(sides[row], device=layer.weight.device)
    width = len(sides[column]) // len(present[column])
    positions = torch.tensor([block or [0] * width for block in blocks[column]], device=rows.device)
    columns = positions[rows // (sizes[row] // groups)]
    layer.weight = _parameter(layer.weight, layer.weight[rows[:, None], columns])
    if layer.bias is not None:
        _cut(layer, "bias", 0, sides[1])
    layer.in_channels, layer.out_channels, layer.groups = len(sides[0]), len(sides[1]), len(present[0])


def _linear(layer: nn.Linear, kept: Kept) -> None:
    if kept.inputs is not None:
        _cut(layer, "weight", 1, kept.inputs)
        layer.in_features = len(kept.inputs)
    if kept.outputs is not None:
        _cut(layer, "weight", 0, kept.outputs)
        _cut(layer, "bias", 0, kept.outputs)
        layer.out_features = len(kept.outputs)


def _normalisation(layer: _NormBase, kept: Kept) -> None:
    outputs = _all(kept.outputs, layer.num_features)
    for name in ("weight", "bias", "running_mean", "running_var"):
        _cut(layer, name, 0, outputs)
    layer.num_features = len(outputs)


def _group_normalisation(layer: nn.GroupNorm, kept: Kept) -> None:
    outputs = _all(kept.outputs, layer.num_channels)
    blocks = _blocks(outputs, layer.num_channels // layer.num_groups, layer.num_groups)
    if len({len(block) for block in blocks if block}) != 1:
        raise ValueError("groups of different sizes")
    for name in ("weight", "bias"):
        _cut(layer, name, 0, outputs)
    layer.num_channels, layer.num_groups = len(outputs), sum(map(bool, blocks))


def _layer_normalisation(layer: nn.LayerNorm, kept: Kept) -> None:
    (channels,) = layer.normalized_shape
    outputs = _all(kept.outputs, channels)
    for name in ("weight", "bias"):
        _cut(layer, name, 0, outputs)
    layer.normalized_shape = (len(outputs),)


def _prelu(layer: nn.PReLU, kept: Kept) -> None:
    outputs = _all(kept.outputs, layer.num_parameters)
    _cut(layer, "weight", 0, outputs)
    layer.num_parameters = len(outputs)


_CUTS: dict[Any, Callable[[Any, Kept], None]] = {
    _ConvNd: _convolution,
    nn.Linear: _linear,
    _NormBase: _normalisation,
    nn.GroupNorm: _group_normalisation,
    nn.LayerNorm: _layer_normalisation,
    nn.PReLU: _prelu,
}
"""Kind of layer → function that cuts it in place; they raise an error if the channels do not fit."""

LAYERS = tuple(_CUTS)
"""Kinds of layers that can be cut."""


def _all(channels: tuple[int, ...] | None, size: int) -> tuple[int, ...]:
    channels = tuple(range(size)) if channels is None else channels
    if channels[-1] >= size:
        raise IndexError(channels[-1])
    return channels


def _blocks(channels: tuple[int, ...], size: int, number: int) -> list[list[int]]:
    """Channels in each of a number of blocks, as positions in their block."""
    blocks: list[list[int]] = [[] for _ in range(number)]
    for channel in channels:
        blocks[channel // size].append(channel % size)
    return blocks


def _cut(module: nn.Module, name: str, dimension: int, channels: tuple[int, ...]) -> None:
    """Keep channels of a parameter or buffer, if the module has it."""
    tensor = getattr(module, name)
    if tensor is None:
        return
    new = tensor.index_select(dimension, torch.tensor(channels, device=tensor.device))
    setattr(module, name, _parameter(tensor, new) if isinstance(tensor, nn.Parameter) else new)


def _parameter(old: torch.Tensor, new: torch.Tensor) -> nn.Parameter:
    innermost = old.ndim == 4 and not old.is_contiguous() and old.is_contiguous(memory_format=torch.channels_last)
    memory_format = torch.channels_last if innermost else torch.contiguous_format
    return nn.Parameter(new.detach().contiguous(memory_format=memory_format), requires_grad=old.requires_grad)
