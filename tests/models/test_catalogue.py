"""How large networks are."""

import pytest
import torch
from torch import nn

from greenseg.files import cache_folder
from greenseg.model_names import DECODERS, NETWORKS, split_model
from greenseg.models import network
from greenseg.models.catalogue import Size, matching, overview, sizes
from greenseg.models.light.lraspp import LRASPP
from greenseg.settings import Settings


def test_multiply_accumulates_are_those_of_the_formula() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8), nn.ConvTranspose2d(8, 1, 2, 2)
    )
    assert network.macs(net, 64) == 64**2 * 9 * 8 + 32**2 * 9 * 8 + 32**2 * 4 * 8
    assert network.macs(net.to("meta"), 64) == network.macs(net, 64)


def test_multiply_accumulates_are_those_that_torchvision_publishes() -> None:
    from torchvision.models.segmentation import LRASPP_MobileNet_V3_Large_Weights

    class Colour(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = LRASPP(3, 21)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.network(x.expand(-1, 3, -1, -1))  # type: ignore[no-any-return]

    published = LRASPP_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1.meta["_ops"]
    assert network.macs(Colour(), 520) / 1e9 == pytest.approx(published, rel=0.01)


def test_the_overview_has_every_network_and_every_decoder() -> None:
    models = [model for group in overview().values() for model in group]
    assert {split_model(model)[1] for model in models} == {*NETWORKS, *DECODERS}


def test_sizes_are_those_of_the_network_that_is_trained_and_are_kept() -> None:
    models = ["enet", "mobilenetv3-tiny-fpn", "mit_b0-segformer", "tu-vit_tiny_patch16_224-dpt", "mobilenet-pan"]
    counted: list[int] = []
    found = sizes(matching(models), 64, lambda done, total: counted.append(total))
    assert counted == [5] * 5
    assert [size.model for size in found] == ["enet", "tu-mobilenetv3_small_050-fpn", *models[2:4], "mobilenet_v2-pan"]
    for size in found[:-1]:
        trained = network.build(Settings.of({"model": size.model, "image_size": 64}))
        assert size.parameters == network.parameters(trained)
        assert size.gmacs is not None
        assert size.gmacs > 0
    assert found[-1] == Size("mobilenet_v2-pan", reason="pan needs image_size 128 or more, not 64")
    assert sizes(matching(models), 64, lambda done, total: counted.append(total)) == found
    assert len(counted) == 5
    (enet,) = sizes(["enet"], 128)
    assert enet.gmacs == pytest.approx(4 * found[0].gmacs)  # type: ignore[operator]


def test_sizes_depend_on_channels_and_classes() -> None:
    (plain,) = sizes(["enet"], 64)
    (several,) = sizes(["enet"], 64, channels=3, classes=4)
    assert several.parameters == network.parameters(network.build(Settings.of({"model": "enet"}), 3, 5))
    assert (several.parameters or 0) > (plain.parameters or 0)
    assert (several.gmacs or 0) > (plain.gmacs or 0)
    assert sizes(["enet"], 64) == [plain]
    assert sizes(["enet"], 64, channels=3, classes=4) == [several]


def test_a_damaged_cache_is_made_again() -> None:
    (before,) = sizes(["enet"], 64)
    for damage in ("", "[]", "{", '{"versions": {}, "sizes": {"enet@64": {"parameters": 1, "gmacs": 1}}}'):
        (cache_folder() / "models.json").write_text(damage)
        assert sizes(["enet"], 64) == [before]


def test_patterns_match_what_can_be_made() -> None:
    assert matching(["resnet??-fpn"]) == ["resnet18-fpn", "resnet34-fpn", "resnet50-fpn"]
    assert matching(["ENET", "c*net"])[:2] == ["enet", "cgnet"]
    assert {model.partition("-")[0] for model in matching(["mit_*-*"])} == {f"mit_b{i}" for i in range(6)}
    assert matching(["mit_b0-*"]) == [
        f"mit_b0-{decoder}" for decoder in DECODERS if decoder not in ("unetplusplus", "linknet", "dpt")
    ]
