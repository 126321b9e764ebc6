"""From files on disk to batches of slices: layouts, volumes, the slice cache, the phantom, augmentation."""

PREPROCESSING = 5
"""Version of the preprocessing. Raise it only when the same files give other pixel values."""
