"""From files on disk to batches of slices: layouts, volumes, the slice cache, the phantom, augmentation."""

from pathlib import Path

from greenseg.files import cache_folder

PREPROCESSING = 6
"""Version of the preprocessing. Raise it only when the same files give other pixel values."""

UNNAMED = 5
"""The version that made the slices of runs whose records do not name their content."""

_DRAWING = 1  # version of the built-in phantom; a change of its bytes raises it


def builtin_phantom() -> Path:
    """Where the built-in phantom is kept, in the user's cache, once it has been drawn."""
    return cache_folder() / f"phantom-v{_DRAWING}"
