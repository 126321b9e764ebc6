"""The available networks and their sizes. Imports torch only to count networks that the cache lacks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import metadata
from typing import Any

from greenseg import __version__
from greenseg import model_names as names
from greenseg.errors import UserError
from greenseg.files import keep, recall
from greenseg.settings import Settings

_KEPT = "models.json"
_DECODER, _ENCODER = "unet", "mobilenet_v2"  # the overview combines all others with these


@dataclass(frozen=True)
class Size:
    """Size of a network.

    Attributes:
        model: name of the network.
        parameters: number of parameters; None if the network cannot be made.
        gmacs: 10⁹ multiply-accumulates of a forward pass over one slice, in convolutions and matrix products.
        reason: why it cannot be made.
    """

    model: str
    parameters: int | None = None
    gmacs: float | None = None
    reason: str = ""


def overview() -> dict[str, list[str]]:
    """Heading → models: whole networks, every decoder on one encoder, encoders with short names under one decoder."""
    transformer = {"dpt": "tu-vit_tiny_patch16_224"}
    return {
        "Whole networks": list(names.NETWORKS),
        "Decoders": [f"{transformer.get(decoder, _ENCODER)}-{decoder}" for decoder in names.DECODERS],
        "Encoders with a short name": [f"{encoder}-{_DECODER}" for encoder in dict.fromkeys(names.ALIASES.values())],
    }


def matching(patterns: Sequence[str]) -> list[str]:
    """The models for names and patterns; patterns contain `*` or `?` and match the names of all known models.

    Raises:
        UserError: a pattern matches nothing, or a name is wrong.
    """
    known = [*names.NETWORKS, *(f"{encoder}-{decoder}" for encoder in names.ENCODERS for decoder in names.DECODERS)]
    known = [model for model in known if names.incompatible(*names.split_model(model)) is None]
    found: dict[str, None] = {}
    problems = []
    for pattern in patterns:
        if "*" in pattern or "?" in pattern:
            models = [model for model in known if fnmatchcase(model, pattern.lower())]
            if not models:
                problems.append(f"no model matches '{pattern}'; name timm models ('tu-…') in full")
            found |= dict.fromkeys(models)
            continue
        try:
            encoder, decoder = names.split_model(pattern)
        except ValueError as error:
            problems.append(f"model: {error}")
            continue
        reason = names.incompatible(encoder, decoder)
        problems += [f"{pattern}: {reason}"] if reason else []
        found[names.join_model(encoder, decoder)] = None
    if problems:
        raise UserError(problems)
    return list(found)


def sizes(
    models: Sequence[str],
    image_size: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    channels: int = 1,
    classes: int = 1,
) -> list[Size]:
    """The sizes of models, from the cache if it has them.

    Args:
        models: names of the models.
        image_size: height and width of a slice, in pixels.
        progress: called with the number of counted networks and their total.
        channels: number of channels of an image.
        classes: number of classes.
    """
    versions = {"greenseg": __version__} | {
        package: metadata.version(package) for package in ("torch", "segmentation-models-pytorch", "timm")
    }
    cached: dict[str, Any] = {}
    try:
        content = recall(_KEPT)
        cached = content["sizes"] if content["versions"] == versions else {}
    except (TypeError, KeyError):
        pass  # missing or damaged: it is made again
    keys = {model: f"{model}@{image_size}/{channels}/{classes}" for model in models}
    missing = [model for model, key in keys.items() if key not in cached]
    for done, model in enumerate(missing):
        progress(done, len(missing))
        cached[keys[model]] = _count(model, image_size, channels, classes)
    if missing:
        keep(_KEPT, {"versions": versions, "sizes": cached})
    return [Size(model, **cached[key]) for model, key in keys.items()]


def _count(model: str, image_size: int, channels: int, classes: int) -> dict[str, Any]:
    from greenseg.models import network

    encoder, decoder = names.split_model(model)
    reason = names.unfit(decoder, image_size=image_size, batch_size=2, width=1.0, pretrained=False)
    if reason:
        return {"reason": reason}
    settings = Settings.model_validate({"encoder": encoder, "decoder": decoder, "image_size": image_size})
    try:
        parameters, macs = network.size(settings, channels, network.outputs(classes))
    except (UserError, RuntimeError) as error:  # an encoder that does not work with this image size
        return {"reason": str(error)}
    return {"parameters": parameters, "gmacs": macs / 1e9}
