"""What a network keeps for the backward pass, and that nothing else changes."""

import copy

import pytest
import torch
from torch import nn

from greenseg.model_names import DECODERS, NETWORKS
from greenseg.models import network
from greenseg.models.gradient_checkpointing import apply, blocks
from greenseg.settings import Settings

ENCODERS = ("mobilenet", "efficientnet-b0", "densenet121", "mit_b0", "tu-convnext_atto", "vgg11", "dpn68")
MODELS = [
    *NETWORKS,
    *(f"{encoder}-unet" for encoder in ENCODERS),
    *(f"resnet18-{decoder}" for decoder in DECODERS if decoder != "dpt"),
    "tu-vit_tiny_patch16_224-dpt",
]


def step(net: nn.Module) -> tuple[int, list[torch.Tensor | None]]:
    """Bytes kept for the backward pass, parameters apart, and the gradients."""
    parameters = {parameter.data_ptr() for parameter in net.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in parameters:
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    torch.manual_seed(0)  # of dropout
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = net(torch.linspace(-1, 1, 2 * 128 * 128).reshape(2, 1, 128, 128)).square().mean()
    loss.backward()
    return sum(kept.values()), [parameter.grad for parameter in net.parameters()]


@pytest.mark.parametrize("model", MODELS)
def test_it_keeps_less_and_computes_the_same(model: str) -> None:
    torch.manual_seed(0)
    plain = network.build(Settings.of({"model": model, "image_size": 128})).train()
    forgetful = copy.deepcopy(plain)
    apply(forgetful)
    assert list(forgetful.state_dict()) == list(plain.state_dict())
    (before, gradients), (after, same) = step(plain), step(forgetful)
    assert after < 0.8 * before
    for one, other in zip(gradients, same, strict=True):
        assert (one is None) == (other is None)
        assert one is None or other is None or torch.equal(one, other)
    for one_buffer, other_buffer in zip(plain.buffers(), forgetful.buffers(), strict=True):
        assert torch.equal(one_buffer, other_buffer), "statistics of batch normalisation are counted once"


def test_blocks_lie_beside_each_other() -> None:
    def layer() -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU())

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = layer()
            self.stages = nn.Sequential(nn.Sequential(layer(), layer()), nn.ModuleList([nn.Sequential(layer())]))
            self.head = nn.Conv2d(1, 1, 1)

    net = Net()
    stages = list(net.stages)
    assert list(blocks(net)) == [*stages[0].children(), *next(stages[1].children()).children()]
