"""A data set whose bytes never change: boxes in integers, written as NRRD by hand. Run folders of earlier versions,
which are kept beside this, were trained on it.
"""

from pathlib import Path

import numpy as np


def write_blocks(root: Path, subjects: int = 3, size: int = 32, slices: int = 6) -> Path:
    """Write `subjects` volumes of uint8 [slices, size, size] with masks in the E2MIP layout; returns the folder."""
    for subject in range(subjects):
        z, y, x = np.indices((slices, size, size))
        brain = (abs(x - 14 - subject) < 7) & (abs(y - 17 + subject) < 6) & (z > 0) & (z < slices - 1)
        image = 40 + 100 * brain + (3 * x + 5 * y + 7 * z + subject) % 23
        for folder, name, volume in (("images", "img", image), ("masks", "mask", brain)):
            path = root / folder / f"{name}_{subject:04d}.nrrd"
            path.parent.mkdir(parents=True, exist_ok=True)
            header = (
                f"NRRD0004\ntype: uint8\ndimension: 3\nspace: left-posterior-superior\nsizes: {size} {size} {slices}\n"
                "space directions: (2,0,0) (0,2,0) (0,0,4)\nkinds: domain domain domain\nendian: little\n"
                "encoding: raw\nspace origin: (0,0,0)\n\n"
            )
            path.write_bytes(header.encode() + volume.astype(np.uint8).tobytes())
    return root
