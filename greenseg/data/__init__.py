"""From files on disk to batches of slices: layouts, volumes, the slice cache, the phantom, augmentation."""

from pathlib import Path

from greenseg.files import cache_folder

PREPROCESSING = 6
"""Version of the preprocessing. Raise it only if the same files give other pixel values."""

UNNAMED = 5
"""Version of the preprocessing for runs without content in their records."""

_DRAWING = 1  # version of the built-in phantom; a change of its bytes raises it


def builtin_phantom() -> Path:
    """Folder of the built-in phantom in the cache; it exists after the first use."""
    return cache_folder() / f"phantom-v{_DRAWING}"
