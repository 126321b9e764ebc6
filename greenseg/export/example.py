"""Segments an image with a network that greenseg exported. Needs numpy, SimpleITK, and onnxruntime or torch.

python segment.py NETWORK.onnx IMAGE.nii.gz MASK.nii.gz                  # NETWORK.json lies beside NETWORK.onnx
python segment.py NETWORK.pt2 CHANNEL_1.nii.gz CHANNEL_2.nii.gz MASK.nii.gz
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

Array = np.ndarray[Any, Any]


def place(pixels: int, pixel: float, size: int, spacing: float) -> tuple[float, float]:
    """Start of the grid along an axis and the distance of its pixels, in pixels of the image."""
    step = spacing / pixel
    multiple = max(1.0, float(round(max(step, 1 / step))))
    exact = multiple if step >= 1 else 1 / multiple
    if abs(step / exact - 1) > 1e-3:
        return (pixels - size * step) / 2, step
    unit = min(1.0, exact)
    return math.floor((pixels - size * exact) / 2 / unit + 1e-3) * unit, exact


def weights(wanted: int, given: int, first: float, step: float) -> Array:
    """Weight of each given pixel in each wanted pixel along an axis: means over larger pixels, else linear."""
    edges, index = first + step * np.arange(wanted + 1)[:, None], np.arange(given)
    if step >= 1:
        overlap = np.minimum(edges[1:], index + 1) - np.maximum(edges[:-1], index)
        return np.asarray(np.clip(overlap / step, 0, 1), np.float32)
    centre = (edges[1:] + edges[:-1] - 1) / 2
    inside = (centre >= -0.5) & (centre < given - 0.5)
    near = 1 - np.abs(np.clip(centre, 0, given - 1) - index)
    return np.asarray(np.where(inside, np.clip(near, 0, 1), 0), np.float32)


def lifted(values: Array) -> Array:
    """Values of a channel with their darkest value at 0, if many are well below 0."""
    low, tissue = np.percentile(values, 0.5), values[values > 0]
    high = np.percentile(tissue, 99.5) if tissue.size else 0.0
    if values.min() >= 0 or low >= 0 or -low <= 0.1 * (high - low):
        return values
    moved = np.maximum(values - np.float32(low), 0)
    return np.where(values == 0, np.float32(0), moved) if (values == 0).mean() > 0.1 else moved


def probabilities(network: Path, images: Array, batch: int = 8) -> Array:
    """float32 [slices, channels, size, size] → float32 [slices, outputs, size, size]."""
    parts = [images[start : start + batch] for start in range(0, len(images), batch)]
    if network.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(network), providers=["CPUExecutionProvider"])
        return np.concatenate([session.run(None, {"images": part})[0] for part in parts])
    import torch

    module = torch.export.load(str(network)).module()
    with torch.inference_mode():
        return np.concatenate([module(torch.from_numpy(part)).numpy() for part in parts])


def main(network: Path, image_paths: list[str], mask_path: str) -> None:
    recipe = json.loads(network.with_suffix(".json").read_text(encoding="utf-8"))["recipe"]
    size, spacing = recipe["image_size"], recipe["spacing"]
    images = [sitk.ReadImage(path) for path in image_paths]
    sizes, pixels = images[0].GetSize(), images[0].GetSpacing()
    thick = [i for i in range(3) if sizes[i] == 1] or [i for i in range(3) if pixels[i] >= 0.99 * max(pixels)]
    order = [*(i for i in range(3) if i != thick[-1]), thick[-1]]  # the slices lie across the thickest axis
    volumes = [sitk.PermuteAxes(image, order) for image in images]
    (columns, rows, _), (across, down, _) = volumes[0].GetSize(), volumes[0].GetSpacing()
    at_row, at_column = place(rows, down, size, spacing), place(columns, across, size, spacing)
    by_row, by_column = weights(size, rows, *at_row), weights(size, columns, *at_column)
    channels = []
    for number, volume in enumerate(volumes):
        values = sitk.GetArrayFromImage(volume)
        window = recipe["windows"].get(str(number))
        if window:  # of Hounsfield units
            low, high = window
            channels.append(
                by_row @ ((np.clip(values.astype(np.float32), low, high) - low) / (high - low)) @ by_column.T
            )
            continue
        grid = by_row @ lifted(values).astype(np.float32) @ by_column.T
        tissue = grid[grid > 0]
        channels.append(np.clip(grid / np.percentile(tissue, 99.5), 0, 1) if tissue.size else grid * 0)
    found = probabilities(network, np.stack(channels, axis=1).astype(np.float32))
    back = [weights(n, size, -first / step, 1 / step) for n, (first, step) in ((rows, at_row), (columns, at_column))]
    found = back[0] @ found @ back[1].T
    if found.shape[1] == 1:
        numbers = (found[:, 0] > 0.5).astype(np.uint8)
    else:
        found[:, 0] += np.maximum(1 - found.sum(1), 0)  # background outside the grid
        numbers = found.argmax(1)
    labels = np.array([0, *(each["labels"][0] if each["labels"] else 1 for each in recipe["classes"])])
    mask = sitk.GetImageFromArray(labels.astype(np.uint8 if labels.max() < 256 else np.uint32)[numbers])
    mask.CopyInformation(volumes[0])
    sitk.WriteImage(sitk.PermuteAxes(mask, [order.index(i) for i in range(3)]), mask_path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:-1], sys.argv[-1])
