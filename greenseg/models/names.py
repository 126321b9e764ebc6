"""Names of networks: `<encoder>-<decoder>`, aliases, and which combinations exist. Imports no torch.

The names are those of segmentation-models-pytorch (smp), https://smp.readthedocs.io; a test holds this list against
the installed smp. Encoders of timm are reached with the prefix `tu-`, as in smp.
"""

import importlib.util
import re
from functools import cache
from pathlib import Path

from greenseg.errors import did_you_mean

DECODERS: dict[str, str] = {
    "unet": "Unet",
    "unetplusplus": "UnetPlusPlus",
    "manet": "MAnet",
    "linknet": "Linknet",
    "fpn": "FPN",
    "pspnet": "PSPNet",
    "pan": "PAN",
    "deeplabv3": "DeepLabV3",
    "deeplabv3plus": "DeepLabV3Plus",
    "upernet": "UPerNet",
    "segformer": "Segformer",
    "dpt": "DPT",
}
"""Our name of a decoder → the name of its class in smp."""

ENCODERS: tuple[str, ...] = tuple(
    """
    densenet121 densenet161 densenet169 densenet201 dpn107 dpn131 dpn68 dpn68b dpn92 dpn98 efficientnet-b0
    efficientnet-b1 efficientnet-b2 efficientnet-b3 efficientnet-b4 efficientnet-b5 efficientnet-b6
    efficientnet-b7 inceptionresnetv2 inceptionv4 mit_b0 mit_b1 mit_b2 mit_b3 mit_b4 mit_b5 mobilenet_v2
    mobileone_s0 mobileone_s1 mobileone_s2 mobileone_s3 mobileone_s4 resnet101 resnet152 resnet18 resnet34
    resnet50 resnext101_32x16d resnext101_32x32d resnext101_32x48d resnext101_32x4d resnext101_32x8d
    resnext50_32x4d se_resnet101 se_resnet152 se_resnet50 se_resnext101_32x4d se_resnext50_32x4d senet154
    timm-efficientnet-b0 timm-efficientnet-b1 timm-efficientnet-b2 timm-efficientnet-b3 timm-efficientnet-b4
    timm-efficientnet-b5 timm-efficientnet-b6 timm-efficientnet-b7 timm-efficientnet-b8 timm-efficientnet-l2
    timm-skresnet18 timm-skresnet34 timm-skresnext50_32x4d timm-tf_efficientnet_lite0 timm-tf_efficientnet_lite1
    timm-tf_efficientnet_lite2 timm-tf_efficientnet_lite3 timm-tf_efficientnet_lite4 vgg11 vgg11_bn vgg13
    vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn xception
    """.split()  # noqa: SIM905  (76 quoted names would be harder to read)
)
"""The encoders of smp itself."""

ALIASES: dict[str, str] = {
    "mobilenet": "mobilenet_v2",
    "mobilenetv2": "mobilenet_v2",
    "mobilenetv3": "tu-mobilenetv3_large_100",
    "mobilenetv3-small": "tu-mobilenetv3_small_100",
    "mobilenetv3-tiny": "tu-mobilenetv3_small_050",
    "efficientnet": "efficientnet-b0",
    "efficientnet-lite": "timm-tf_efficientnet_lite0",
    "mobileone": "mobileone_s0",
    "resnet": "resnet18",
    "segformer": "mit_b0",
    "mit": "mit_b0",
}
"""Short names of encoders."""

_DILATED = ("deeplabv3", "deeplabv3plus", "pan")
_NOT_DILATED = ("densenet", "inception", "vgg", "xception")


@cache
def timm_names() -> frozenset[str]:
    """Names that the installed timm registers, read from its sources so that torch need not be imported.

    Empty where timm's sources cannot be found: then any `tu-` name passes here and timm itself answers.
    """
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    pattern = re.compile(r"^@register_model\s*\ndef (\w+)\(", re.MULTILINE)
    sources = Path(spec.submodule_search_locations[0], "models").glob("*.py")
    return frozenset(name for file in sources for name in pattern.findall(file.read_text(encoding="utf-8")))


def resolve_encoder(name: str) -> str:
    """The encoder that a name or alias stands for.

    Raises:
        ValueError: there is no such encoder; the message names the nearest one.
    """
    encoder = ALIASES.get(name.lower(), name)
    if encoder in ENCODERS:
        return encoder
    if encoder.startswith("tu-"):
        known = timm_names()
        bare = encoder[3:].split(".")[0]
        if not known or bare in known:
            return encoder
        raise ValueError(f"timm has no model '{bare}'{did_you_mean(bare, sorted(known))}")
    hint = did_you_mean(name, [*ALIASES, *ENCODERS]) or (f" (timm has it: 'tu-{name}')" if name in timm_names() else "")
    raise ValueError(
        f"no encoder '{name}'{hint}; valid: an encoder of segmentation-models-pytorch, an alias, or 'tu-' and a "
        f"model of timm"
    )


def resolve_decoder(name: str) -> str:
    """The decoder that a name stands for, in lower case.

    Raises:
        ValueError: there is no such decoder; the message lists all.
    """
    if name.lower() in DECODERS:
        return name.lower()
    raise ValueError(f"no decoder '{name}'{did_you_mean(name, list(DECODERS))}; valid: {', '.join(DECODERS)}")


def split_model(name: str) -> tuple[str, str]:
    """Encoder and decoder that a model name, `<encoder>-<decoder>`, stands for.

    >>> split_model("mobilenet-unet")
    ('mobilenet_v2', 'unet')

    Raises:
        ValueError: the name has no decoder, or one half is unknown.
    """
    encoder, dash, decoder = name.rpartition("-")
    if not dash:
        raise ValueError(f"'{name}' is not <encoder>-<decoder>, such as mobilenet-unet or resnet18-fpn")
    return resolve_encoder(encoder), resolve_decoder(decoder)


def incompatible(encoder: str, decoder: str) -> str | None:
    """Why smp cannot join this encoder and this decoder, or None if it can."""
    if encoder.startswith("mit_") and decoder in ("unetplusplus", "linknet"):
        return f"{decoder} does not take the encoders mit_*"
    if decoder in _DILATED and encoder.startswith(_NOT_DILATED):
        return f"{decoder} needs a dilated encoder, and {encoder} cannot be dilated"
    if decoder == "dpt" and not encoder.startswith("tu-"):
        return "dpt takes only encoders of timm ('tu-…', vision transformers)"
    return None
