"""Which channels of a network depend on each other and can only be removed together.

This is the dependency graph of Fang, Ma, Song, Mi, Wang: DepGraph: Towards Any Structural Pruning, CVPR 2023,
arXiv:2301.12900, for single channels instead of whole layers. One forward pass gives every output channel of a layer a
label, and every operation carries the labels of its inputs on: torch.cat joins labels as it joins channels, and an
addition makes the labels of its operands one. So views, slices, shuffles and concatenations need no rules of their own.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from greenseg.models.shape import Kept, Shape, loose_parameters, named_layers

FROZEN = 1
"""Label of the channels that must stay, such as those of the image and of the logits. 0 is the label of a constant."""

_MOVES = frozenset(
    """
    _reshape_alias _unsafe_view cat constant_pad_nd expand flip permute pixel_shuffle pixel_unshuffle repeat roll select
    slice split split_with_sizes squeeze stack t transpose unbind unsafe_split unsqueeze view
    """.split()  # noqa: SIM905
)
"""Operations that only move elements. Labels move in the same way."""

_SPATIAL = frozenset(
    """
    max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d max_unpool2d upsample_nearest2d
    _upsample_nearest_exact2d upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
    reflection_pad2d replication_pad2d
    """.split()  # noqa: SIM905
)
"""Operations on each channel of [batch, channels, height, width] by itself."""

_COPIES = frozenset("_to_copy alias clone detach lift_fresh".split())  # noqa: SIM905
_VIEWS = frozenset("_reshape_alias _unsafe_view view".split())  # noqa: SIM905
_REDUCTIONS = frozenset("amax amin max mean min prod std sum var var_mean".split())  # noqa: SIM905
_ALONG = frozenset("_softmax _log_softmax cumsum".split())  # noqa: SIM905
"""Operations along a dimension that keep the shape."""

_POINTWISE = frozenset("hardsigmoid hardswish hardtanh lerp masked_fill where".split())  # noqa: SIM905
"""Operations on each element that torch does not tag as such."""


class Mismatch(Exception):
    """A pruned network computes with other channels than the dense one; the message says where."""


@dataclass
class Layer:
    """The labels of the channels of a layer or parameter; None for a side that it does not have."""

    inputs: list[int] | None = None
    outputs: list[int] | None = None


@dataclass
class Channels:
    """The labels of a network.

    Attributes:
        layers: name of a layer, or of a parameter outside layers → labels of its channels.
    """

    layers: dict[str, Layer] = field(default_factory=dict)
    _parent: list[int] = field(default_factory=lambda: [0, FROZEN])

    def new(self, number: int) -> list[int]:
        """New labels."""
        first = len(self._parent)
        self._parent.extend(range(first, first + number))
        return list(range(first, first + number))

    def find(self, label: int) -> int:
        """The representative of all labels that must be kept or removed together with this one."""
        while self._parent[label] != label:
            self._parent[label] = self._parent[self._parent[label]]
            label = self._parent[label]
        return label

    def classes(self) -> list[int]:
        """The representative of every label."""
        return [self.find(label) for label in range(len(self._parent))]

    def unite(self, one: int, other: int) -> None:
        """Make two labels one; that of a constant fits any."""
        one, other = sorted((self.find(one), self.find(other)))  # the smaller one represents, so FROZEN does
        if one:
            self._parent[other] = one


def follow(network: nn.Module, example: torch.Tensor, careful: bool = False) -> Channels:
    """The labels of a network's channels.

    Args:
        network: in evaluation mode.
        example: images [1, channels, height, width], on the device of the network; `meta` works as well.
        careful: keep the channels that the network splits, reshapes or multiplies with each other. The code of some
            networks has their numbers.
    """
    channels = Channels()
    _Pass(network, channels, careful).run(example)
    return channels


def check(network: nn.Module, example: torch.Tensor, dense: Channels, shape: Shape) -> None:
    """Make sure that every layer of a pruned network gets exactly the kept channels of its inputs, in their order.

    Raises:
        Mismatch: it does not, or it fails.
    """
    expected = Channels()
    expected._parent = dense.classes()
    for name, layer in dense.layers.items():
        kept = shape.layers.get(name, Kept())
        expected.layers[name] = Layer(_pick(layer.inputs, kept.inputs), _pick(layer.outputs, kept.outputs))
    try:
        _Check(network, expected).run(example)
    except Mismatch:
        raise
    except Exception as error:  # shapes that do not fit fail in as many ways as there are operations
        raise Mismatch(f"{type(error).__name__}: {error}".splitlines()[0]) from error


def _pick(labels: list[int] | None, kept: tuple[int, ...] | None) -> list[int] | None:
    return labels if labels is None or kept is None else [labels[channel] for channel in kept]


class _Pass(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A forward pass that carries labels along: int64, with the shape of their tensor and stride 0 where constant."""

    def __init__(self, network: nn.Module, channels: Channels, careful: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.network, self.channels, self.careful = network, channels, careful
        self.labels: Any = WeakIdKeyDictionary()
        self.inside: nn.Module | None = None
        self.multiplied: set[int] = set()

    def run(self, example: torch.Tensor) -> None:
        with ExitStack() as stack, torch.no_grad():
            for name, layer in named_layers(self.network):
                before, after = self._hooks(name)
                stack.callback(layer.register_forward_pre_hook(before).remove)
                stack.callback(layer.register_forward_hook(after, with_kwargs=False).remove)
            loose = {}
            for name, module, own in loose_parameters(self.network):
                loose[id(getattr(module, own))] = name
            for parameter in self.network.parameters():
                self.labels[parameter] = self.parameter(loose.get(id(parameter)), parameter)
            self.labels[example] = torch.tensor(FROZEN).expand(example.shape)
            with self:
                outputs = self.network.forward(example)  # not compiled
            for output in tree_leaves(outputs):
                self.freeze(self.of(output))
            if self.careful:
                self.freeze_attention()

    def freeze_attention(self) -> None:
        """Keep the inputs of linear layers for queries, keys and values: some code takes their size from its input."""
        for name, module in named_layers(self.network):
            layer = self.channels.layers.get(name, Layer())
            if isinstance(module, nn.Linear) and not self.multiplied.isdisjoint(layer.outputs or []):
                self.freeze(torch.tensor(layer.inputs))

    def _hooks(self, name: str) -> tuple[Callable[..., None], Callable[..., None]]:
        def before(layer: nn.Module, inputs: Any) -> None:
            if self.inside is None:
                self.inside = layer

        def after(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            if self.inside is layer:
                with _disable_current_modes():
                    self.layer(name, layer, inputs[0], output)
                self.inside = None

        return before, after

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self.inside is None:
            given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
            results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
            if given and results:
                self.carry(func, args, kwargs, given, results)
        return result

    def carry(self, func: Any, args: Any, kwargs: Any, given: list[torch.Tensor], results: list[torch.Tensor]) -> None:
        """Label the results of an operation."""
        name = func._schema.name.removeprefix("aten::").rstrip("_")
        inputs = [self.of(tensor) for tensor in given]
        if not any(bool(labels.any()) for labels in map(_compact, inputs)):
            return
        if name in _COPIES or (name == "as_strided" and results[0] is given[0]):
            moved = inputs[:1]
        elif name in _MOVES:
            moved = self.move(name, func, args, kwargs)
            if (
                self.careful
                and name not in ("cat", "stack")
                and any(_variation(one) != _variation(labels) for one in moved for labels in inputs[:1])
            ):
                for labels in (*inputs, *moved):
                    self.freeze(labels)
        elif torch.Tag.pointwise in func.tags or name in _POINTWISE:
            moved = [self.joined(inputs, results[0].shape)] * len(results)
        elif name in _SPATIAL:
            moved = [self.each_channel(inputs, one.shape) for one in results]
        elif name in _REDUCTIONS or name in _ALONG:
            moved = self.along(args, inputs[0], results[0].shape, reduce=name in _REDUCTIONS) * len(results)
        elif name == "bmm" and not self.careful:
            moved = [self.product(inputs[0], inputs[1], results[0].shape)]
        else:
            moved = self.frozen(inputs, results)
            for labels in inputs:
                self.multiplied.update(_values(labels))
        for tensor, labels in zip(results, moved, strict=True):
            self.labels[tensor] = _constant(labels) if labels.shape == tensor.shape else labels.expand(tensor.shape)

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The labels of a tensor."""
        found = self.labels.get(tensor)
        return torch.tensor(0).expand(tensor.shape) if found is None else found

    def move(self, name: str, func: Any, args: Any, kwargs: Any) -> list[torch.Tensor]:
        """Labels after an operation that moves elements."""
        if name == "constant_pad_nd":
            args, kwargs = args[:2], {}  # label 0, whatever the value
        args, kwargs = tree_map_only(torch.Tensor, self.of, (args, kwargs))
        if name in _VIEWS:
            return [args[0].reshape(args[1])]  # labels have other strides than their tensor
        return tree_leaves(func(*args, **kwargs))

    def joined(self, inputs: list[torch.Tensor], shape: torch.Size) -> torch.Tensor:
        """Labels of tensors that are combined element by element; they become one."""
        small = [_compact(labels) for labels in inputs]
        varied = [max(sizes) for sizes in zip(*(_sizes(labels, len(shape)) for labels in small), strict=True)]
        for number, labels in enumerate(inputs):
            sizes = _sizes(labels, len(shape))
            if any(size == 1 < wide for size, wide in zip(sizes, varied, strict=True)) and small[number].any():
                self.freeze(labels)  # one channel for all channels of another tensor, such as attention
                small[number] = torch.tensor(0)
        found = small[0]
        for labels in small[1:]:
            self.unite(found, labels)
            found = torch.where(found > 0, found, labels)
        return found.expand(shape)

    def each_channel(self, inputs: list[torch.Tensor], shape: torch.Size) -> torch.Tensor:
        vectors = [self.vector(labels, labels.ndim - 3) for labels in inputs]
        for other in vectors[1:]:
            self.unite(vectors[0], other)
        return vectors[0][:, None, None].expand(shape)

    def along(self, args: Any, labels: torch.Tensor, shape: torch.Size, reduce: bool) -> list[torch.Tensor]:
        """Labels after an operation along dimensions; those along it become one."""
        given = args[1] if len(args) > 1 else None
        dimensions = [given] if isinstance(given, int) else given
        if not dimensions or not all(type(dimension) is int for dimension in dimensions):
            dimensions = range(labels.ndim)
        found = _compact(labels)
        for dimension in dimensions:
            first = found.amax(dimension, keepdim=True)
            self.unite(first, found)
            found = first
        return [
            found.expand(labels.shape)
            if not reduce
            else found.expand(
                [
                    1 if dimension in {d % labels.ndim for d in dimensions} else size
                    for dimension, size in enumerate(labels.shape)
                ]
            ).reshape(shape)
        ]

    def product(self, one: torch.Tensor, other: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Labels of [b, n, k] × [b, k, m]: those along k become one, those along n or m stay."""
        one, other = _compact(one), _compact(other)
        rows, columns = one.shape[1] > 1, other.shape[2] > 1
        inner = one.shape[2] > 1 or other.shape[1] > 1
        if one.shape[0] > 1 or other.shape[0] > 1 or rows + columns + inner > 1:
            return self.frozen([one, other], [torch.empty(shape, device="meta")])[0]
        if inner:
            self.unite(one[0, 0], other[0, :, 0])
            return torch.tensor(0).expand(shape)
        if bool(one.any()) and bool(other.any()):
            return self.frozen([one, other], [torch.empty(shape, device="meta")])[0]
        return torch.maximum(one, other).expand(shape)

    def frozen(self, inputs: list[torch.Tensor], results: list[torch.Tensor]) -> list[torch.Tensor]:
        """Freeze all channels of an operation without rule."""
        for labels in inputs:
            self.freeze(labels)
        return [torch.tensor(FROZEN).expand(tensor.shape) for tensor in results]

    def freeze(self, labels: torch.Tensor) -> None:
        for label in _values(labels):
            self.channels.unite(FROZEN, label)

    def unite(self, one: torch.Tensor, other: torch.Tensor) -> None:
        """Make labels one, element by element; both are broadcast."""
        one, other = torch.broadcast_tensors(one, other)  # type: ignore[no-untyped-call]
        differ = (one != other) & (one > 0) & (other > 0)
        if bool(differ.any()):
            pairs = torch.stack([one[differ], other[differ]], 1)
            for pair in pairs.unique(dim=0).tolist():  # type: ignore[no-untyped-call]
                self.pair(*pair)

    def pair(self, one: int, other: int) -> None:
        self.channels.unite(one, other)

    def vector(self, labels: torch.Tensor, dimension: int) -> torch.Tensor:
        """The labels along a dimension; those of other dimensions become one. Constants get FROZEN."""
        flat = _compact(labels)
        size = labels.shape[dimension]
        flat = flat.movedim(dimension, 0).flatten(1).expand(size, -1)
        first = flat.amax(1)
        self.unite(first[:, None], flat)
        return torch.where(first > 0, first, FROZEN)

    def parameter(self, name: str | None, parameter: torch.Tensor) -> torch.Tensor:
        """The labels of a parameter outside layers."""
        if name is None:
            return torch.tensor(FROZEN if parameter.numel() > 1 else 0).expand(parameter.shape)
        layer = self.channels.layers.setdefault(name, Layer())
        layer.outputs = layer.outputs or self.channels.new(parameter.numel())
        return torch.tensor(layer.outputs).reshape(parameter.shape)

    def layer(self, name: str, layer: nn.Module, x: torch.Tensor, output: torch.Tensor) -> None:
        """Label the output of a layer."""
        dimension = _channel_dimension(layer, self.of(x))
        if dimension is None:
            self.frozen([self.of(x)], [output])
            self.labels[output] = torch.tensor(FROZEN).expand(output.shape)
            return
        inputs = self.vector(self.of(x), dimension)
        if isinstance(layer, nn.PReLU) and layer.num_parameters == 1:
            self.labels[output] = self.of(x)
            return
        if isinstance(layer, _ConvNd | nn.Linear):
            size = output.shape[dimension]
            outputs = torch.tensor(self.meet(name, inputs.tolist(), size))
            self.tie(layer, inputs, outputs)
            shape = [1] * output.ndim
            shape[dimension] = size
            self.labels[output] = outputs.reshape(shape).expand(output.shape)
        else:
            self.meet(name, None, 0, inputs.tolist())
            self.tie(layer, inputs, inputs)
            self.labels[output] = self.of(x)

    def meet(self, name: str, inputs: list[int] | None, size: int, features: list[int] | None = None) -> list[int]:
        """Record the labels of a layer; if it runs again, the labels become one. Returns those of its output."""
        known = self.channels.layers.get(name)
        if known is None:
            outputs = self.channels.new(size) if features is None else features
            known = self.channels.layers[name] = Layer(inputs, outputs)
        for before, now in ((known.inputs, inputs), (known.outputs, features)):
            if before is not None and now is not None:
                self.unite(torch.tensor(before), torch.tensor(now))
        assert known.outputs is not None
        return known.outputs

    def tie(self, layer: nn.Module, inputs: torch.Tensor, outputs: torch.Tensor) -> None:
        """Groups keep as many channels as each other: the channels at one position of all groups go together."""
        groups = int(getattr(layer, "groups", getattr(layer, "num_groups", 1)))
        if groups == 1:
            return
        for side in (inputs, outputs):
            blocks = side.reshape(groups, -1)
            if blocks.shape[1] > 1 and len(inputs) != groups != len(outputs):
                self.unite(blocks[:1], blocks)
        if len(inputs) == groups or len(outputs) == groups:  # depthwise: each group goes as a whole
            for side in (inputs, outputs):
                self.unite(inputs.reshape(groups, -1)[:, :1], side.reshape(groups, -1))


class _Check(_Pass):  # type: ignore[no-untyped-call]
    """A pass through a pruned network in which labels that would become one must be one already."""

    def __init__(self, network: nn.Module, expected: Channels) -> None:
        super().__init__(network, expected, careful=False)
        self.where = "the network"

    def pair(self, one: int, other: int) -> None:
        if self.channels.find(one) != self.channels.find(other):
            raise Mismatch(f"after {self.where}, channels are combined that do not belong together")

    def freeze(self, labels: torch.Tensor) -> None:
        for label in _values(labels):
            if label:
                self.pair(FROZEN, label)

    def tie(self, layer: nn.Module, inputs: torch.Tensor, outputs: torch.Tensor) -> None:
        """Nothing: groups of several channels may have only one left, which does not make a convolution depthwise."""

    def meet(self, name: str, inputs: list[int] | None, size: int, features: list[int] | None = None) -> list[int]:
        self.where = name
        known = self.channels.layers[name]
        for expected, found in ((known.inputs, inputs), (known.outputs, features)):
            if found is not None and (expected is None or len(expected) != len(found)):
                raise Mismatch(f"{name} gets another number of channels")
        if features is None and len(known.outputs or []) != size:
            raise Mismatch(f"{name} has another number of channels")
        super().meet(name, inputs, size, features)
        assert known.outputs is not None
        return known.outputs


def _channel_dimension(layer: nn.Module, labels: torch.Tensor) -> int | None:
    """The dimension of a layer's channels in its input and output; None if the layer cannot be cut.

    Args:
        labels: labels of its input.
    """
    own = {name for name, parameter in layer._parameters.items() if parameter is not None}
    if own - {"weight", "bias"} or "weight" not in layer._parameters:
        return None  # such as the gain of timm's standardised convolutions, or a parametrisation
    last = labels.ndim - 1
    if isinstance(layer, nn.Linear):
        return last
    if isinstance(layer, nn.LayerNorm):
        # Subclasses of timm and smp also normalise images with channels in the second dimension.
        channels = [number for number, size in enumerate(_compact(labels).shape) if size > 1] or [last]
        return channels[0] if len(channels) == len(layer.normalized_shape) == 1 else None
    return 1


def _compact(labels: torch.Tensor) -> torch.Tensor:
    """Labels with size 1 where they are constant by their strides."""
    for dimension, stride in enumerate(labels.stride()):
        if stride == 0 and labels.shape[dimension] > 1:
            labels = labels.narrow(dimension, 0, 1)
    return labels


def _constant(labels: torch.Tensor) -> torch.Tensor:
    """Labels with stride 0 where they are constant."""
    shape, labels = labels.shape, _compact(labels)
    for dimension, size in enumerate(labels.shape):
        if size > 1 and bool((labels == labels.narrow(dimension, 0, 1)).all()):
            labels = labels.narrow(dimension, 0, 1)
    return labels.expand(shape)


def _values(labels: torch.Tensor) -> list[int]:
    return _compact(labels).unique().tolist()  # type: ignore[no-any-return,no-untyped-call]


def _sizes(tensor: torch.Tensor, dimensions: int) -> list[int]:
    return [1] * (dimensions - tensor.ndim) + list(tensor.shape)


def _variation(labels: torch.Tensor) -> list[int]:
    """The sizes of the dimensions along which labels vary."""
    return [size for size in _compact(_constant(labels)).shape if size > 1]
