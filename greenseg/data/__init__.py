"""From files on disk to batches of slices: layouts, volumes, the slice cache, the phantom, augmentation."""
