"""Names of networks, held against the installed segmentation-models-pytorch and timm."""

import re
import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenseg.model_names import (
    ALIASES,
    DECODERS,
    ENCODERS,
    NETWORKS,
    incompatible,
    join_model,
    resolve_encoder,
    split_model,
    timm_names,
)


@pytest.mark.parametrize("encoder", [*ENCODERS, *ALIASES, "tu-resnet18", "tu-resnet18.a1_in1k"])
def test_every_encoder_is_a_name_in_a_model(encoder: str) -> None:
    resolved = ALIASES.get(encoder, encoder)
    assert resolve_encoder(encoder) == resolved
    assert resolve_encoder(resolved) == resolved
    for decoder in DECODERS:
        assert split_model(f"{encoder}-{decoder}") == (resolved, decoder)
        assert split_model(f"{encoder}-{decoder.upper()}") == (resolved, decoder)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_whole_network_is_a_model_without_encoder(network: str) -> None:
    assert split_model(network) == split_model(network.upper()) == ("", network)
    assert join_model("", network) == network
    assert join_model(*split_model("resnet18-unet")) == "resnet18-unet"


def test_no_alias_hides_an_encoder() -> None:
    assert not set(ALIASES) & set(ENCODERS)
    assert all(alias == alias.lower() for alias in ALIASES)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18", "'resnet18' is not <encoder>-<decoder>"),
        ("", "'' is not <encoder>-<decoder>"),
        ("resnet17-unet", "no encoder 'resnet17' (did you mean 'resnet18'?)"),
        ("ResNet18-unet", "no encoder 'ResNet18' (did you mean 'resnet18'?)"),
        ("mobilnet-unet", "no encoder 'mobilnet' (did you mean 'mobilenet'?)"),
        ("resnet18-unett", "no decoder 'unett' (did you mean 'unet'?)"),
        ("resnet18-zzz", "no decoder 'zzz'; valid: unet, unetplusplus"),
        ("-unet", "no encoder ''; valid: "),
        ("convnext_tiny-unet", "no encoder 'convnext_tiny' (timm has it: 'tu-convnext_tiny')"),
        ("tu-convnext_tinny-unet", "timm has no model 'convnext_tinny' (did you mean 'convnext_tiny'?)"),
        ("tu--unet", "timm has no model ''"),
        (
            "enett",
            "'enett' is not <encoder>-<decoder>, such as mobilenet-unet or resnet18-fpn, nor a whole network (did you",
        ),
        ("resnet18-ennet", "no decoder 'ennet' (did you mean 'enet'?)"),
    ],
)
def test_wrong_names(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        split_model(name)


@given(st.text() | st.lists(st.sampled_from(["tu", "-", ".", "unet", "resnet18", "mit"])).map("".join))
@settings(deadline=None)
def test_any_text_is_a_network_or_a_mistake(name: str) -> None:
    try:
        encoder, decoder = split_model(name)
    except ValueError:
        return
    if encoder:
        assert decoder in DECODERS or decoder in NETWORKS  # that these take no encoder is said later
        assert encoder in ENCODERS or encoder.startswith("tu-")
    else:
        assert decoder in NETWORKS


# ── against what is installed


@pytest.fixture(scope="module")
def smp() -> Any:
    import segmentation_models_pytorch

    return segmentation_models_pytorch


def test_the_encoders_are_those_of_smp(smp: Any) -> None:
    assert sorted(ENCODERS) == sorted(smp.encoders.encoders)


def test_the_decoders_are_those_of_smp(smp: Any) -> None:
    classes = {name for name in vars(smp) if isinstance(getattr(smp, name), type)}
    models = {name for name in classes if issubclass(getattr(smp, name), smp.base.SegmentationModel)}
    assert set(DECODERS.values()) == models
    assert all(decoder == name.lower() for decoder, name in DECODERS.items())


def test_the_names_of_timm_are_those_that_it_registers(smp: Any) -> None:
    import timm

    assert timm_names() == set(timm.list_models())
    assert {name.removeprefix("tu-") for name in ALIASES.values() if name.startswith("tu-")} <= timm_names()


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    "encoder",
    [
        "densenet121", "efficientnet-b0", "inceptionv4", "mit_b0", "mobilenet_v2", "mobileone_s0", "resnet18",
        "timm-skresnet18", "tu-mobilenetv3_small_050", "vgg11", "xception",
    ],
)  # fmt: skip
def test_a_pair_is_incompatible_where_smp_cannot_build_it(encoder: str, decoder: str, smp: Any) -> None:
    import torch

    # Without memory, and at once; but mit_* reads values while it is built.
    device = "cpu" if encoder.startswith("mit_") else "meta"
    try:
        with torch.device(device), warnings.catch_warnings(action="ignore"):
            getattr(smp, DECODERS[decoder])(encoder_name=encoder, encoder_weights=None, in_channels=1, classes=1)
        refused = None
    except Exception as error:
        refused = error
    assert bool(incompatible(encoder, decoder)) == bool(refused), refused
