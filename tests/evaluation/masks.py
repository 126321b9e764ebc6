"""Small masks in real files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.data.datasets import Array, write

SPACING = (1.5, 2, 4)
"""Of columns, rows and slices, in mm."""


def block(label: int = 1, shift: int = 0, kind: type = np.uint8) -> Array:
    """A mask [4, 24, 24] with a box of 2×8×6 pixels."""
    mask: Array = np.zeros((4, 24, 24), kind)
    mask[1:3, 6:14, 6 + shift : 12 + shift] = label
    return mask


def folder_of(
    folder: Path, masks: Mapping[str, Array], suffix: str = ".nii.gz", spacing: tuple[float, ...] = SPACING
) -> Path:
    folder.mkdir(exist_ok=True)
    for name, mask in masks.items():
        write(folder / f"{name}{suffix}", mask, spacing)
    return folder
