"""Structured pruning: the channels of a network with the smallest weights go, so that it gets smaller and faster.

Channels are ranked by the magnitude of all weights that depend on them, as in the group importance of DepGraph (Fang et
al. 2023, arXiv:2301.12900). Each layer loses the same share of its channels.
"""

import copy
import warnings
from collections import Counter, defaultdict
from importlib import metadata

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from greenseg import __version__
from greenseg.compress.channels import FROZEN, Channels, Mismatch, check, follow
from greenseg.errors import UserError
from greenseg.files import keep, recall
from greenseg.model_names import DECODERS, NETWORKS
from greenseg.models.network import build
from greenseg.models.shape import Kept, Shape, named_layers, slim
from greenseg.settings import Settings

_LEAST = 4
"""Channels that every layer keeps, if it has them."""

_KEPT = "prunable.json"

_ENCODERS = """
    densenet121 dpn68 efficientnet-b0 inceptionresnetv2 inceptionv4 mit_b0 mobileone_s0 resnet18 resnext50_32x4d
    se_resnet50 timm-efficientnet-b0 timm-skresnet18 timm-tf_efficientnet_lite0 tu-convnext_atto
    tu-mobilenetv3_small_050 vgg11_bn xception
    """.split()  # noqa: SIM905
"""Small encoders of each family."""

TESTED = frozenset(
    (
        *NETWORKS,
        *(f"mobilenet_v2-{decoder}" for decoder in DECODERS if decoder != "dpt"),
        *(f"{encoder}-unet" for encoder in _ENCODERS),
        "tu-vit_tiny_patch16_224-dpt",
    )
)
"""Models that the tests prune; others need a `dry_run`."""


def prune(network: nn.Module, example: torch.Tensor, share: float, name: str = "") -> Shape:
    """Remove channels from every layer of a network, in place; the rest keep their weights.

    Channels of the image and the logits stay. The same weights give the same shape.

    Args:
        network: network with trained weights, as `greenseg.models.network.build` makes it.
        example: images [any, channels, height, width], on the device of the network; only their size matters.
        share: share of the channels of each layer to remove, at least 0 and below 1, rounded down.
        name: name of the network for the error message; empty takes that of its class.

    Returns:
        The shape; `slim` cuts the dense network to it.

    Raises:
        UserError: the network cannot be pruned; the message names it. The network is unchanged.
    """
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        shape = _prunable_shape(network, example[:1], share)
    except Mismatch as error:
        raise UserError(f"{name or type(network).__name__}: cannot be pruned: {error}") from error
    finally:
        for module, mode in training.items():
            module.training = mode
    slim(network, shape)
    return shape


def _prunable_shape(network: nn.Module, example: torch.Tensor, share: float) -> Shape:
    """The shape to prune a network to, checked on a copy.

    Raises:
        Mismatch: there is none.
    """
    error = Mismatch("it has no channels that can be removed alone")
    for careful in (False, True):
        channels = follow(network, example, careful)
        shape = _choose(network, channels, share)
        if not shape.layers:
            break
        trial = copy.deepcopy(network)
        slim(trial, shape)
        try:
            check(trial, example, channels, shape)
        except Mismatch as mismatch:
            error = mismatch
            continue
        return shape
    raise error


def _choose(network: nn.Module, channels: Channels, share: float) -> Shape:
    """The channels to keep: of all that the same layers make, those with the greatest importance."""
    classes = channels.classes()
    makers: dict[int, set[str]] = defaultdict(set)  # class of channels → layers that have them as output
    copies: dict[int, int] = defaultdict(int)  # class → its channels in the output of a layer
    modules = dict(named_layers(network))
    for name, layer in channels.layers.items():
        if isinstance(modules.get(name), _ConvNd | nn.Linear):
            for one, number in Counter(classes[label] for label in layer.outputs or []).items():
                makers[one].add(name)
                copies[one] = max(copies[one], number)
    groups: dict[frozenset[str], list[int]] = defaultdict(list)
    for one, names in makers.items():
        if one != FROZEN:
            groups[frozenset(names)].append(one)
    importance = _importance(network, channels)
    removed: set[int] = set()
    for group in groups.values():
        least = -(-_LEAST // min(copies[one] for one in group))
        number = min(int(len(group) * share + 1e-9), len(group) - least)
        if number > 0:
            removed.update(sorted(group, key=lambda one: (importance[one], one))[:number])
    layers = {}
    for name, layer in channels.layers.items():
        kept = [
            None
            if labels is None or removed.isdisjoint(found := [classes[label] for label in labels])
            else tuple(number for number, one in enumerate(found) if one not in removed)
            for labels in (layer.inputs, layer.outputs)
        ]
        if any(side is not None for side in kept):
            layers[name] = Kept(*kept)
    return Shape(layers)


def _importance(network: nn.Module, channels: Channels) -> dict[int, float]:
    """Class of channels → sum of the squares of all weights that make, scale or read them."""
    found: dict[int, float] = defaultdict(float)
    classes = channels.classes()
    modules = dict(named_layers(network))
    for name, layer in channels.layers.items():
        module = modules.get(name)
        weight = None if module is None else module._parameters.get("weight")
        if weight is None or weight.is_meta or isinstance(module, nn.PReLU):
            continue
        squares = weight.detach().double().cpu().square()
        if isinstance(module, _ConvNd | nn.Linear):
            groups = getattr(module, "groups", 1)
            rows, columns = (
                (layer.inputs, layer.outputs) if getattr(module, "transposed", False) else (layer.outputs, layer.inputs)
            )
            squares = squares.flatten(2).sum(2) if squares.ndim > 2 else squares
            # [rows, columns / groups] → sums of rows, and of columns in each group.
            sides = [(rows, squares.sum(1)), (columns, squares.reshape(groups, -1, squares.shape[1]).sum(1).flatten())]
        else:
            sides = [(layer.outputs, squares)]
        for labels, values in sides:
            for label, value in zip(labels or [], values.tolist(), strict=True):
                found[classes[label]] += value
    return found


def dry_run(settings: Settings, channels: int, outputs: int) -> str | None:
    """Why the network for the settings cannot be pruned by `settings.prune`, or None; the cache has earlier answers.

    Args:
        channels: number of channels of an image.
        outputs: number of logits per pixel.
    """
    versions = {"greenseg": __version__} | {
        package: metadata.version(package) for package in ("torch", "segmentation-models-pytorch", "timm")
    }
    cached: dict[str, str | None] = {}
    try:
        content = recall(_KEPT)
        cached = content["reasons"] if content["versions"] == versions else {}
    except (TypeError, KeyError):
        pass  # missing or damaged: it is made again
    shape = {name: getattr(settings, name) for name in ("image_size", "width", "decoder_width", "prune")}
    key = f"{settings.model} {channels}/{outputs} {shape}"
    if key not in cached:
        cached[key] = _try(settings, channels, outputs)
        keep(_KEPT, {"versions": versions, "reasons": cached})
    return cached[key]


def _try(settings: Settings, channels: int, outputs: int) -> str | None:
    """Prune a new network; returns why that fails."""
    reason = ""
    neutral = {"channels_last": False, "compile": False, "gradient_checkpointing": False, "encoder_weights": "none"}
    # `meta` needs no memory, but has neither values nor all operations.
    for device in ("meta", "cpu"):
        try:
            with torch.device(device), warnings.catch_warnings(action="ignore"):
                network = build(settings.model_copy(update=neutral), channels, outputs)
            image = torch.zeros(1, channels, settings.image_size, settings.image_size, device=device)
            prune(network, image, settings.prune, settings.model)
        except UserError as error:
            reason = f"{error}"
        except Exception as error:  # as many kinds as there are encoders
            reason = f"{settings.model}: cannot be pruned: {type(error).__name__}: {error}".splitlines()[0]
        else:
            return None
    return reason
