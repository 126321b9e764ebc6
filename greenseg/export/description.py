"""The description of an exported network: as JSON in the file and beside it, and in words for people."""

import json
from pathlib import Path
from typing import Any

import greenseg
from greenseg.compress.program import ALLOWED, BATCHES
from greenseg.export import example
from greenseg.export.network import Network
from greenseg.inference.described import VERSION
from greenseg.inference.recipe import Recipe


def description(network: Network) -> dict[str, Any]:
    """The description inside a file; `greenseg.inference.described` reads it."""
    recipe, metrics = network.predictor.recipe, network.record.metrics
    size = recipe.image_size
    return {
        "version": VERSION,
        "greenseg": greenseg.__version__,
        "network": network.name,
        "run": network.record.known_as,
        "validation_dice": metrics.dice if metrics else None,
        "recipe": recipe.to_json(),
        "input": {
            "name": "images",
            "shape": ["batch", recipe.channels, size, size],
            "dtype": "float32",
            "range": [0, 1],
            "meaning": "slices, prepared as in `preprocessing`",
        },
        "output": {
            "name": "probabilities",
            "shape": ["batch", network.outputs, size, size],
            "dtype": "float32",
            "range": [0, 1],
            "channels": channels(recipe),
            "meaning": meaning(recipe),
        },
        "preprocessing": preprocessing(recipe),
        "postprocessing": postprocessing(recipe),
    }


def as_text(value: dict[str, Any]) -> str:
    """A description as JSON text."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def checked(difference: float, against: str) -> dict[str, Any]:
    """The result of the comparison with the original; see `Network.difference`."""
    return {
        "compared": f"{against}, with the network of the run in torch",
        "largest_difference": difference,
        "allowed": ALLOWED,
        "batches": list(BATCHES),
    }


def channels(recipe: Recipe) -> list[str]:
    """The meaning of each output channel."""
    names = list(recipe.classes.names)
    return names if len(names) == 1 else ["background", *names]


def meaning(recipe: Recipe) -> str:
    """The output in words."""
    if len(recipe.classes) == 1:
        return f"probability of {recipe.classes.names[0]} in each pixel (sigmoid)"
    return "probability of the background and of each class in each pixel (softmax: they add up to 1)"


def preprocessing(recipe: Recipe) -> list[str]:
    """The way from an image to the input, step by step; the exact rules of `greenseg.data`."""
    size, mm = recipe.image_size, f"{recipe.spacing:g}"
    windows = [
        f"Channel {channel + 1} is in Hounsfield units: clip it to {window.low:.9g} … {window.high:.9g}, then scale "
        f"linearly to 0 … 1, before resampling. Leave it out of the other steps on intensities."
        for channel, window in sorted(recipe.windows.items())
    ]
    others = [] if len(recipe.windows) == recipe.channels else [
        "If values are below 0: let low be percentile 0.5 of all values, and high percentile 99.5 of the values above "
        "0 (0 if there are none). If low < 0 and -low > 0.1 · (high - low), subtract low and set what is then below 0 "
        "to 0; but if more than 10 % of the values are exactly 0, these stay 0. Otherwise the values stay as they are.",
    ]  # fmt: skip
    scaled = [] if not others else [
        "Then scale each channel on the grid, all slices of the subject together: divide by percentile 99.5 (linear "
        "interpolation between ranks) of the grid's pixels above 0, and clip to 0 … 1. If none is above 0, all become "
        "0.",
    ]  # fmt: skip
    return [
        "Slices lie across the axis with a single pixel, else across the axis with the widest spacing (within 1 %; the "
        "last of equal ones). The other two axes keep their order as x and y; rows of a slice lie along y.",
        *windows,
        *others,
        f"Resample each slice, each axis separately, to a grid of {size} pixels of {mm} mm. Let pixel be the spacing "
        f"of the image, n its number of pixels along the axis, and step = {mm} / pixel. The grid starts at "
        f"(n - {size} · step) / 2 from the outer edge of the first pixel, in pixels of the image. If step or 1 / step "
        f"is within 0.1 % of a whole number, step is taken as exactly this number (or its inverse), and the start is "
        f"rounded down to a multiple of min(1, step), after adding 0.1 % of it.",
        "If step ≥ 1, a pixel of the grid is the mean of the image over its whole width, with 0 outside the image. If "
        "step < 1, it is interpolated linearly between the centres of the image's pixels; up to the outer edge of the "
        "image its border value counts, and 0 outside.",
        *scaled,
        f"The input is float32 [slices, {recipe.channels} channel{'s' if recipe.channels > 1 else ''}, {size} rows, "
        f"{size} columns]. If several images belong to a subject, they share the scales of intensities.",
    ]


def postprocessing(recipe: Recipe) -> list[str]:
    """The way from the output to a mask, step by step."""
    labels = ", ".join(f"{label} = {name}" for name, label in zip(recipe.classes.names, recipe.labels, strict=True))
    decision = (
        "A pixel belongs to the class if its probability is above 0.5."
        if len(recipe.classes) == 1
        else "Outside the grid, the background has probability 1. A pixel has the class with the largest probability."
    )
    return [
        "Resample the probabilities back to the pixels of the image, each axis separately, with the same rule: means "
        "over larger pixels, linear interpolation for smaller ones, 0 outside the grid.",
        decision,
        f"Labels in the mask: 0 = background, {labels}.",
    ]


def as_markdown(value: dict[str, Any], network: Network, file: str, loading: str) -> str:
    """The description in words, with an example in Python.

    Args:
        value: the description beside the file.
        network: the network.
        file: name of the exported file.
        loading: sentences about the file and how to load it.
    """
    recipe, dice = network.predictor.recipe, value["validation_dice"]
    steps = "\n".join(f"{number}. {step}" for number, step in enumerate(value["preprocessing"], 1))
    after = "\n".join(f"{number}. {step}" for number, step in enumerate(value["postprocessing"], 1))
    quality = "unknown" if dice is None else f"{dice:.4f}"
    stem = Path(file).stem
    return f"""# {stem}

A segmentation network for {", ".join(recipe.classes.names)}, exported by greenseg {value["greenseg"]}.

| | |
| --- | --- |
| file | `{file}` |
| network | {value["network"]} |
| run | `{value["run"]}` |
| Dice on its validation subjects | {quality} |
| input | `images`: float32 {_shape(value["input"]["shape"])}, from 0 to 1 |
| output | `probabilities`: float32 {_shape(value["output"]["shape"])}: {", ".join(value["output"]["channels"])} |
| difference from the original | at most {value["check"]["largest_difference"]:.1e} (allowed: {ALLOWED:g}) |

The output is the {meaning(recipe)}. {loading} `{stem}.json` has all of this for programs.

It is not a medical device.

## From an image to the input

{steps}

## From the output to a mask

{after}

## Example

This program needs no greenseg. Save it as `segment.py`.

```python
{source()}```
"""


def source() -> str:
    """The example program."""
    return Path(example.__file__).read_text(encoding="utf-8")


def _shape(shape: list[Any]) -> str:
    return f"[{', '.join(map(str, shape))}]"
