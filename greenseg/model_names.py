"""Names of networks: `<encoder>-<decoder>`, whole networks, aliases, and valid combinations. Imports no torch.

The names are those of segmentation-models-pytorch (smp), https://smp.readthedocs.io; a test compares this list with
the installed smp. timm's encoders have the prefix `tu-`, as in smp. A whole network has no choice of encoder: it is a
decoder with an empty encoder.
"""

import importlib.util
import re
from collections.abc import KeysView
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
"""Name of a decoder → name of its class in smp."""

NETWORKS: dict[str, str] = {
    "attention-squeeze-unet": "attention_squeeze_unet.AttentionSqueezeUNet",
    "cgnet": "cgnet.CGNet",
    "contextnet": "contextnet.ContextNet",
    "dabnet": "dabnet.DABNet",
    "edanet": "edanet.EDANet",
    "enet": "enet.ENet",
    "erfnet": "erfnet.ERFNet",
    "esnet": "esnet.ESNet",
    "espnetv2": "espnetv2.ESPNetv2",
    "fpenet": "fpenet.FPENet",
    "fssnet": "fssnet.FSSNet",
    "lraspp": "lraspp.LRASPP",
    "micronet": "micronet.MicroNet",
    "segnet": "segnet.SegNet",
    "sqnet": "sqnet.SQNet",
}
"""Name of a whole network → its module and class in `greenseg.models.light`."""

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
"""smp's own encoders."""

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
_GLOBAL = ("deeplabv3", "deeplabv3plus", "pan", "upernet")
"""Decoders with batch normalisation of features that have a single value per slice."""

# Families of timm models, named by the file of timm that defines them.
_DILATED_FAMILIES = frozenset(
    """
    byoanet byobnet convnext cspnet cspnext efficientnet hardcorenas inception_next mobilenetv3 mobilevit nfnet regnet
    res2net resnest resnet resnetv2 rexnet sknet
    """.split()  # noqa: SIM905
)
_FLAT_FAMILIES = frozenset(
    """
    beit cait convit convmixer crossvit csatv2 deepseek_vit deit efficientvim efficientvit_msra eva gemma4_vit levit
    mlp_mixer naflexvit nest pit qwen3_vit sequencer shvit tnt visformer vision_transformer vision_transformer_hybrid
    vision_transformer_relpos vision_transformer_sam vitamin volo
    """.split()  # noqa: SIM905
)
"""Transformers and similar networks that do not halve the feature size from stage to stage."""


@cache
def _timm_families() -> dict[str, str]:
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        return {}
    pattern = re.compile(r"^@register_model\s*\ndef (\w+)\(", re.MULTILINE)
    sources = Path(spec.submodule_search_locations[0], "models").glob("*.py")
    return {name: file.stem for file in sources for name in pattern.findall(file.read_text(encoding="utf-8"))}


def timm_names() -> KeysView[str]:
    """Names that the installed timm registers, read from its sources to avoid an import of torch.

    Empty if timm's sources are not found. Any `tu-` name then passes here, and timm itself checks it.
    """
    return _timm_families().keys()


def resolve_encoder(name: str) -> str:
    """The encoder for a name or alias.

    Raises:
        ValueError: there is no such encoder; the message has the nearest name.
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
        f"no encoder '{name}'{hint}; valid: an encoder of segmentation-models-pytorch, an alias, or 'tu-' and the "
        f"name of a timm model"
    )


def resolve_decoder(name: str) -> str:
    """The decoder or whole network for a name, in lower case.

    Raises:
        ValueError: there is no such decoder; the message lists all of them.
    """
    known = [*DECODERS, *NETWORKS]
    if name.lower() in known:
        return name.lower()
    raise ValueError(f"no decoder '{name}'{did_you_mean(name, known)}; valid: {', '.join(known)}")


def split_model(name: str) -> tuple[str, str]:
    """Encoder and decoder of a model name: `<encoder>-<decoder>`, or a whole network without encoder.

    >>> split_model("mobilenet-unet")
    ('mobilenet_v2', 'unet')
    >>> split_model("enet")
    ('', 'enet')

    Raises:
        ValueError: the name has no decoder, or one half is unknown.
    """
    if name.lower() in NETWORKS:
        return "", name.lower()
    encoder, dash, decoder = name.rpartition("-")
    if not dash:
        hint = "" if name in ENCODERS or name in ALIASES else did_you_mean(name, list(NETWORKS))
        raise ValueError(
            f"'{name}' is not <encoder>-<decoder>, such as mobilenet-unet or resnet18-fpn, nor a whole network{hint}; "
            f"valid: {', '.join(NETWORKS)}"
        )
    return resolve_encoder(encoder), resolve_decoder(decoder)


def join_model(encoder: str, decoder: str) -> str:
    """The model name of an encoder and a decoder; the inverse of `split_model`."""
    return f"{encoder}-{decoder}" if encoder else decoder


def incompatible(encoder: str, decoder: str) -> str | None:
    """Why this encoder and this decoder cannot be combined, or None if they can."""
    if decoder in NETWORKS:
        return f"{decoder} is a whole network and does not take an encoder" if encoder else None
    if not encoder:
        return f"{decoder} needs an encoder, such as mobilenet-{decoder}"
    family = _timm_families().get(encoder[3:].split(".")[0], "") if encoder.startswith("tu-") else None
    if encoder.startswith("mit_") and decoder in ("unetplusplus", "linknet"):
        return f"{decoder} does not work with the encoders mit_*"
    if decoder != "dpt" and family in _FLAT_FAMILIES:
        return f"{decoder} needs features of several sizes, but {encoder} has a single size; dpt may work with it"
    if decoder in _DILATED and (encoder.startswith(_NOT_DILATED) or (family and family not in _DILATED_FAMILIES)):
        return f"{decoder} needs a dilated encoder, but {encoder} cannot be dilated"
    if decoder == "dpt" and family is None:
        return "dpt works only with timm encoders ('tu-…', vision transformers)"
    patch = re.search(r"_patch(\d+)", encoder) if family in _FLAT_FAMILIES else None
    if patch and int(patch[1]) not in (8, 16, 32):
        return f"{decoder} needs patches of 8, 16 or 32 pixels, but {encoder} has {patch[1]}"
    return None


_LEAST_WIDTH = 4
_WIDTH_STEPS = {"fpn": 32}  # it normalises groups of channels
"""Decoder → the number that its widths are multiples of, if there is one."""


def unfit(
    decoder: str, *, image_size: int, batch_size: int, width: float, pretrained: bool, decoder_width: int = 0
) -> str | None:
    """Why a valid network cannot be trained with these settings, or None if it can."""
    if width != 1 and decoder not in NETWORKS:
        return f"only whole networks have a width ({', '.join(NETWORKS)}); choose a smaller encoder instead"
    if decoder_width and decoder in NETWORKS:
        return "a whole network has no decoder_width; it has width"
    if 0 < decoder_width < _LEAST_WIDTH:
        return f"a decoder_width of {decoder_width} is too small; use {_LEAST_WIDTH} or more"
    if decoder_width % _WIDTH_STEPS.get(decoder, 1):
        return f"the decoder_width of {decoder} is a multiple of {_WIDTH_STEPS[decoder]}, not {decoder_width}"
    if pretrained and decoder in NETWORKS:
        return "a whole network has no pretrained encoder weights"
    if decoder == "pan" and image_size < 128:
        return f"pan needs image_size 128 or more, not {image_size}"
    if batch_size == 1 and (decoder in _GLOBAL or image_size == 32):
        return "batch normalisation cannot learn from a batch_size of 1 here; use at least 2"
    return None
