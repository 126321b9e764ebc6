"""Pruned networks: smaller, still those of their weights, and made again from their shape."""

import copy
import json
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from greenseg.compress.prune import TESTED, dry_run, prune
from greenseg.errors import UserError
from greenseg.model_names import DECODERS, NETWORKS
from greenseg.models.network import build, macs, parameters
from greenseg.models.shape import Shape, named_layers, slim
from greenseg.settings import Settings, problems_of


def settings_of(model: str, **values: Any) -> Settings:
    fits = (size for size in (64, 128, 224) if not problems_of({"model": model, "image_size": size}))
    return Settings.of({"model": model, "image_size": next(fits)} | values)


def trained(settings: Settings, channels: int = 2, outputs: int = 3) -> tuple[nn.Module, torch.Tensor]:
    """A network with weights of different importance and the statistics of a batch; images [2, channels, …]."""
    torch.manual_seed(0)
    network = build(settings, channels, outputs)
    images = torch.randn(2, channels, settings.image_size, settings.image_size)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
    with torch.no_grad():
        network(images)
    return network.eval(), images


def silence(network: nn.Module, shape: Shape) -> None:
    """Set the weights that read removed channels to 0."""
    layers = dict(named_layers(network))
    for name, kept in shape.layers.items():
        layer = layers.get(name)
        if kept.inputs is None or not isinstance(layer, _ConvNd | nn.Linear):
            continue
        groups = getattr(layer, "groups", 1)
        transposed = getattr(layer, "transposed", False)
        inputs = layer.in_channels if isinstance(layer, _ConvNd) else layer.in_features
        outputs = layer.out_channels if isinstance(layer, _ConvNd) else layer.out_features
        removed = sorted({*range(inputs)} - {*kept.inputs})
        with torch.no_grad():
            if transposed or groups == 1:
                layer.weight[removed if transposed else (slice(None), removed)] = 0
                continue
            for group, position in (divmod(channel, inputs // groups) for channel in removed):
                layer.weight[group * outputs // groups : (group + 1) * outputs // groups, position] = 0


@pytest.mark.parametrize("model", sorted(TESTED))
def test_a_pruned_network_computes_what_its_channels_computed_and_learns(model: str) -> None:
    settings = settings_of(model)
    network, images = trained(settings)
    dense = copy.deepcopy(network)
    shape = prune(network, images, 0.3)

    assert parameters(network) < (0.92 if model in _PART else 0.85) * parameters(dense)
    size = settings.image_size
    assert macs(network, size, 2) < 0.8 * macs(dense, size, 2)

    with torch.no_grad():
        logits = network(images)
        assert logits.shape == (2, 3, size, size)
        assert logits.isfinite().all()

        again = copy.deepcopy(dense)
        slim(again, Shape.from_json(json.loads(json.dumps(shape.to_json()))))
        weights = network.state_dict()
        assert list(weights) == list(again.state_dict())
        assert all(torch.equal(value, weights[name]) for name, value in again.state_dict().items())
        assert torch.equal(again(images), logits)
        assert [str(module) for module in network.modules()] == [str(module) for module in again.modules()]

        for value in again.state_dict().values():
            value.zero_()
        again.load_state_dict(weights)
        assert torch.equal(again(images), logits)

        # Removed channels have no effect, except on norms over channels.
        layers = dict(named_layers(network))
        if not any(isinstance(layers.get(name), nn.GroupNorm | nn.LayerNorm) for name in shape.layers):
            silence(dense, shape)
            assert torch.allclose(dense(images), logits, rtol=0, atol=1e-4 * float(logits.abs().max()))

    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    network.train()(images).square().mean().backward()
    torch.optim.SGD(network.parameters(), 0.1).step()
    learning = [name for name, value in network.named_parameters() if value.grad is not None]
    assert all(network.get_parameter(name).isfinite().all() for name in learning)
    changed = sum(not torch.equal(before[name], network.get_parameter(name)) for name in learning)
    assert changed > 0.9 * len(learning)


_PART = ("mobilenet_v2-pspnet", "timm-skresnet18-unet")
"""The first uses only some levels of its encoder; the code of the second has the numbers of many channels."""


def test_the_tests_prune_every_decoder_and_every_whole_network() -> None:
    assert {*NETWORKS} <= TESTED
    assert {*DECODERS} == {model.rpartition("-")[2] for model in TESTED - {*NETWORKS}}


@pytest.mark.parametrize("model", ["mobilenet_v2-unet", "enet", "espnetv2", "mobilenet_v2-fpn", "resnext50_32x4d-unet"])
def test_every_layer_keeps_some_channels_however_much_is_pruned(model: str) -> None:
    network, images = trained(settings_of(model))
    dense = dict(copy.deepcopy(network).named_modules())
    prune(network, images, 0.95)
    assert network(images).shape == (2, 3, 64, 64)
    for name, layer in network.named_modules():
        if isinstance(layer, _ConvNd):
            was = dense[name]
            assert isinstance(was, _ConvNd)
            assert layer.out_channels >= min(4, was.out_channels)


def test_the_smallest_weights_go_and_the_rest_stays_in_its_order() -> None:
    first, last = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 1)
    network = nn.Sequential(first, nn.ReLU(), last)
    with torch.no_grad():
        for channel, weight in enumerate([5.0, 0.1, 4.0, 0.2, 3.0, 0.3, 2.0, 1.0]):
            first.weight[channel] = weight
            last.weight[:, channel] = weight
    shape = prune(network, torch.zeros(1, 1, 8, 8), 0.4)
    assert shape.to_json() == {"0": {"outputs": [0, 2, 4, 6, 7]}, "2": {"inputs": [0, 2, 4, 6, 7]}}
    assert first.weight[:, 0, 0, 0].tolist() == [5, 4, 3, 2, 1]


def test_same_weights_give_the_same_shape_whatever_the_transforms() -> None:
    plain, images = trained(settings_of("mobilenet_v2-unet"))
    shape = prune(copy.deepcopy(plain), images, 0.5)
    assert prune(copy.deepcopy(plain), torch.randn(1, 2, 96, 96), 0.5) == shape
    for transforms in (
        {"gradient_checkpointing": True, "channels_last": True},
        {"compile": True, "channels_last": False},
    ):
        changed = build(settings_of("mobilenet_v2-unet", **transforms), 2, 3)
        changed.load_state_dict(plain.state_dict())
        changed.train()
        assert prune(changed, images, 0.5) == shape
        assert all(module.training for module in changed.modules())
        changed.forward(images).mean().backward()
        layout = torch.channels_last if transforms["channels_last"] else torch.contiguous_format
        convolutions = [module for module in changed.modules() if isinstance(module, nn.Conv2d)]
        assert all(module.weight.is_contiguous(memory_format=layout) for module in convolutions)


def test_a_pruned_network_can_be_exported() -> None:
    network, images = trained(settings_of("enet"))
    prune(network, images, 0.3)
    exported = torch.export.export(network, (images,)).module()
    assert torch.allclose(exported(images), network(images), atol=1e-5)


class _Numbers(nn.Module):
    """A network whose code has the number of its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 8, 1), nn.Conv2d(8, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.last(x * torch.ones(8, 1, 1))  # type: ignore[no-any-return]


def test_a_network_that_cannot_be_pruned_is_refused_by_name_and_stays() -> None:
    network = _Numbers()
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(UserError, match=r"_Numbers: cannot be pruned"):
        prune(network, torch.zeros(1, 1, 8, 8), 0.5)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with pytest.raises(UserError, match=r"unet: cannot be pruned: .*no channels"):
        prune(nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 8, 8), 0.5, "unet")


def test_a_dry_run_says_whether_a_network_can_be_pruned(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENSEG_CACHE", str(tmp_path))
    settings = settings_of("tu-mobilenetv3_small_050-linknet").model_copy(update={"prune": 0.3})
    assert dry_run(settings, 1, 1) is None
    monkeypatch.setattr("greenseg.compress.prune.build", lambda *_: pytest.fail("the answer is in the cache"))
    assert dry_run(settings, 1, 1) is None
    monkeypatch.setattr("greenseg.compress.prune.build", lambda *_: _Numbers())
    reason = dry_run(settings_of("tu-mobilenetv3_small_050-unet").model_copy(update={"prune": 0.3}), 1, 1)
    assert reason is not None
    assert reason.startswith("tu-mobilenetv3_small_050-unet: cannot be pruned")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "mapping"),
        ({"head": [1, 2]}, "head: "),
        ({"head": {"inputs": []}}, "head: "),
        ({"head": {"inputs": [2, 1]}}, "head: "),
        ({"head": {"inputs": [-1, 1]}}, "head: "),
        ({"head": {"inputs": [0.0]}}, "head: "),
        ({"head": {"width": [0]}}, "head: "),
    ],
)
def test_a_damaged_shape_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Shape.from_json(value)


@pytest.mark.parametrize("value", [{"nowhere": {"outputs": [0]}}, {"0": {"outputs": [0, 8]}}, {"1": {"inputs": [0]}}])
def test_the_shape_of_another_network_is_refused(value: Any) -> None:
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 1, 1))
    with pytest.raises(ValueError, match=f"^{next(iter(value))}: "):
        slim(network, Shape.from_json(value))
