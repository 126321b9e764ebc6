"""The light networks, held against their publications."""

import pkgutil

import pytest
import torch
from torch import nn

from greenseg.model_names import NETWORKS
from greenseg.models.light.attention_squeeze_unet import AttentionSqueezeUNet
from greenseg.models.light.blocks import conv_bn_prelu
from greenseg.models.light.cgnet import CGNet
from greenseg.models.light.contextnet import ContextNet
from greenseg.models.light.dabnet import DABNet
from greenseg.models.light.edanet import EDANet
from greenseg.models.light.enet import ENet
from greenseg.models.light.erfnet import ERFNet
from greenseg.models.light.esnet import ESNet
from greenseg.models.light.espnetv2 import EESP, Down, ESPNetv2, level_channels
from greenseg.models.light.fpenet import FPENet
from greenseg.models.light.fssnet import FSSNet
from greenseg.models.light.lraspp import LRASPP
from greenseg.models.light.micronet import MicroNet
from greenseg.models.light.segnet import SegNet
from greenseg.models.light.sqnet import SQNet

CLASSES = [pkgutil.resolve_name(f"greenseg.models.light.{path}") for path in NETWORKS.values()]


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def statistics(network: nn.Module) -> int:
    """Numbers that batch normalisation keeps beside its parameters."""
    return sum(2 * m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize(
    ("network", "published", "digits"),
    [
        # M parameters, 3 input channels, as many outputs as in the publication; to the digits that it gives.
        (AttentionSqueezeUNet(3, 2), 2.59, 2),  # 2 classes: skin lesion or not; arXiv:2405.15778 gives 2.59
        (CGNet(3, 19), 0.5, 1),  # Cityscapes, M3N21
        (DABNet(3, 19), 0.76, 2),  # Cityscapes
        (ERFNet(3, 20), 2.06, 2),  # Cityscapes with its unlabelled class
        (ESNet(3, 20), 1.66, 2),  # Cityscapes
        (FPENet(3, 19), 0.4, 1),  # Cityscapes
        (FSSNet(3, 20), 0.2, 1),  # Cityscapes
        (LRASPP(3, 21), 3.22, 2),  # Pascal VOC; torchvision
        (MicroNet(3, 2), round(31.02 / 29.26, 2), 2),  # buildings or not; so much smaller than the U-Net in its code
        (SQNet(3, 19), 16.26, 2),  # Cityscapes; of the implementation that its docstring names, not of its authors
    ],
)
def test_parameters_are_as_published(network: nn.Module, published: float, digits: int) -> None:
    assert round(parameters(network) / 1e6, digits) == published


def test_lraspp_has_exactly_the_parameters_of_torchvision() -> None:
    from torchvision.models.segmentation import LRASPP_MobileNet_V3_Large_Weights

    weights = LRASPP_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1
    assert parameters(LRASPP(3, 21)) == weights.meta["num_params"]


@pytest.mark.parametrize(("make", "published"), [(ENet, 0.37), (SegNet, 29.46)])
def test_with_the_statistics_of_batch_normalisation_the_sizes_are_those_in_the_paper_of_enet(
    make: type[nn.Module], published: float
) -> None:
    with torch.device("meta"):
        network = make(3, 20)
    assert round((parameters(network) + statistics(network)) / 1e6, 2) == published
    assert parameters(network) == pytest.approx(published * 1e6, rel=0.02)  # without them


def test_edanet_has_the_published_size_within_a_hundredth() -> None:
    assert parameters(EDANet(3, 19)) == pytest.approx(0.68e6, rel=0.01)


def test_contextnet_has_the_published_size_with_the_biases_that_batch_normalisation_makes_redundant() -> None:
    network = ContextNet(3, 19)
    biases = statistics(network) // 2  # one for each channel that is normalised
    assert round((parameters(network) + biases) / 1e6, 2) == 0.85


@pytest.mark.parametrize(("width", "published", "last"), [(0.5, 1.24, 1024), (1, 1.67, 1024), (1.5, 2.31, 1024)])
def test_espnetv2_completed_to_the_classifier_has_the_published_size(width: float, published: float, last: int) -> None:
    """The paper gives sizes of the ImageNet classifier only: our encoder, its fifth level and its last layer."""
    network = ESPNetv2(3, 20, width)
    decoder = (network.project4, network.pyramid, network.project3, network.project2, network.project1)
    c4, c5 = level_channels(width)[3:]
    rest = [
        Down(c4, c5, 3, 7),
        *(EESP(c5, c5, 5) for _ in range(3)),
        conv_bn_prelu(c5, c5, 3, groups=c5),
        conv_bn_prelu(c5, last, groups=4),
        nn.Linear(last, 1000),
    ]
    classifier = parameters(network) - sum(map(parameters, decoder)) + sum(map(parameters, rest))
    assert round(classifier / 1e6, 2) == published


def test_a_network_takes_more_channels_than_its_first_layer_has() -> None:
    for make in (DABNet, EDANet, ENet, ERFNet, ESNet, FSSNet):
        with torch.device("meta"):
            assert make(in_channels=20, classes=1)(torch.randn(2, 20, 32, 32)).shape == (2, 1, 32, 32)


@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
@pytest.mark.parametrize("make", CLASSES)
def test_logits_have_the_size_of_the_image_and_every_parameter_learns(
    make: type[nn.Module], size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    network = make(in_channels=1, classes=1)
    logits = network(torch.randn(2, 1, *size))
    assert logits.shape == (2, 1, *size)
    logits.square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    assert make(in_channels=3, classes=4).eval()(torch.randn(1, 3, *size)).shape == (1, 4, *size)


@pytest.mark.parametrize("make", CLASSES)
def test_width_scales_the_channels(make: type[nn.Module]) -> None:
    sizes = []
    for width in (0.25, 0.5, 0.9, 1.0, 1.3, 2.0, 4.0):
        with torch.device("meta"):
            network = make(in_channels=1, classes=1, width=width)
            assert network(torch.randn(2, 1, 64, 64)).shape == (2, 1, 64, 64)
        sizes.append(parameters(network))
    assert sizes == sorted(set(sizes))
    narrow, normal, wide = (sizes[i] for i in (1, 3, 5))
    assert 1.5 < normal / narrow < 4.5
    assert 3 < wide / normal < 4.5
