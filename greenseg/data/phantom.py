"""A phantom: synthetic volumes of a fetal head in maternal tissue, without patient data, for tests and demos.

It consists of ellipsoids in millimetres, in the contrasts of three fast sequences (DWI, fMRI, T2w) and with any
direction of the slices. The images have the artefacts of a scanner: partial volume, motion between slices, bias field,
Rician noise. Heads differ in size and position, other round organs compete with them, and some slices have no brain. It
tests the pipeline and does not model anatomy: results on it say nothing about patients.
"""

import errno
import gzip
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from greenseg.data import builtin_phantom
from greenseg.errors import UserError
from greenseg.files import CACHE_REMEDY, refusal

BUILTIN_VOLUMES = 15


@dataclass(frozen=True)
class Contrast:
    """A sequence: its grid, and the brightness of each tissue in it (air is 0)."""

    size: int
    pixel: float  # mm
    thickness: float  # mm
    slices: tuple[int, int]  # fewest, most
    subsamples: int  # per pixel and axis, for partial volume
    brain: float
    ventricle: float
    csf: float
    skull: float
    fluid: float
    muscle: float
    fat: float
    organ: tuple[float, float]
    noise: float


CONTRASTS: dict[str, Contrast] = {
    "DWI": Contrast(128, 2.0, 4.0, (16, 22), 2, 0.9, 0.45, 0.5, 0.2, 0.4, 0.4, 0.15, (0.2, 0.85), 0.07),
    "FMRI": Contrast(100, 3.0, 4.0, (16, 22), 2, 0.6, 0.8, 0.75, 0.25, 0.7, 0.4, 0.45, (0.25, 0.75), 0.06),
    "T2W": Contrast(256, 1.0, 4.0, (16, 22), 1, 0.55, 0.95, 0.9, 0.15, 0.95, 0.25, 0.8, (0.2, 0.9), 0.05),
}

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def write_phantom(
    out: Path, volumes: int, seed: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Path]:
    """Write a phantom data set in the E2MIP layout; the same seed writes the same bytes.

    The last fifth of the volumes (at least one) is for validation, the rest for training.

    Args:
        out: folder to create; must not exist, or be empty.
        volumes: number of volumes, at least 2; contrasts alternate.
        seed: seed of all random numbers.
        progress: called with the number of written volumes and their total.

    Returns:
        The written images.

    Raises:
        UserError: fewer than 2 volumes, or `out` is a file or a folder that is not empty.
        OSError: the disk is full, or `out` is not writable.
    """
    if volumes < 2:
        raise UserError(f"--volumes {volumes}: at least 2 are needed, for training and for validation")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not an empty folder; choose another, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    written = []
    try:
        validating = max(1, round(volumes / 5))
        for i in range(volumes):
            name = list(CONTRASTS)[i % len(CONTRASTS)]
            subject = f"{name}_case{i // len(CONTRASTS):04d}"
            split = "validation_data" if i >= volumes - validating else "training_data"
            image, mask = draw(CONTRASTS[name], np.random.default_rng([seed, i]))
            for kind, volume, file in (("images", image, subject), ("masks", mask, f"{subject}_mask")):
                path = Path(split, kind, f"{file}.nii.gz")
                (unfinished / path).parent.mkdir(parents=True, exist_ok=True)
                sitk.WriteImage(volume, str(unfinished / path), useCompression=True)
                _check(unfinished / path)
                if kind == "images":
                    written.append(out / path)
            progress(i + 1, volumes)
        unfinished.chmod(0o755)  # mkdtemp makes private folders, but other users may read data sets
        if out.exists():
            out.rmdir()
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return written


def _check(path: Path) -> None:
    """Make sure that a file is complete and on disk, since ITK does not detect a full disk.

    Raises:
        OSError: the file is not complete.
    """
    try:
        with path.open("rb+") as file, gzip.open(file) as content:
            os.fsync(file.fileno())
            if not content.read(1 << 20):
                raise EOFError
            while content.read(1 << 20):
                pass
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None


def builtin() -> tuple[Path, bool]:
    """The folder of the built-in phantom in the cache, and whether this call created it.

    Raises:
        UserError: the cache is not writable.
        OSError: the disk is full.
    """
    root = builtin_phantom()
    if root.is_dir():
        return root, False
    try:
        write_phantom(root, BUILTIN_VOLUMES, seed=0)
    except OSError as error:
        if not root.is_dir():  # else another process was faster, and wrote the same bytes
            raise refusal(root.parent, error, CACHE_REMEDY) from None
    return root, True


def draw(contrast: Contrast, rng: np.random.Generator) -> tuple[sitk.Image, sitk.Image]:
    """One volume and its brain mask.

    Args:
        contrast: the sequence.
        rng: source of random numbers.

    Returns:
        Image (float32) and mask (uint8, 0 or 1), [x, y, slice], with spacing and an oblique direction.
    """
    scene = _Scene(contrast, rng)
    count, factor = int(rng.integers(contrast.slices[0], contrast.slices[1] + 1)), contrast.subsamples
    axes = _rotation(rng)  # columns: the directions of x, y and the slices in the scene
    fine = contrast.pixel / factor
    plane = (np.arange(contrast.size * factor, dtype=np.float32) - (contrast.size * factor - 1) / 2) * fine
    x, y = np.meshgrid(plane, plane)
    shift, angle = np.zeros(2), 0.0
    images, masks = [], []
    for k in range(count):
        # The fetus moves between slices: a slow drift, and now and then a jump.
        shift = 0.8 * shift + rng.normal(0, 1.2, 2) + (rng.random() < 0.08) * rng.normal(0, 5, 2)
        angle = 0.8 * angle + rng.normal(0, 0.02)
        moved = (
            np.cos(angle) * x - np.sin(angle) * y + shift[0],
            np.sin(angle) * x + np.cos(angle) * y + shift[1],
        )
        signal, brain = np.zeros_like(x), np.zeros_like(x)
        depths = (np.arange(2) - 0.5) * contrast.thickness / 2 + (k - (count - 1) / 2) * contrast.thickness
        for z in depths:
            points = [axes[i, 0] * moved[0] + axes[i, 1] * moved[1] + axes[i, 2] * z for i in range(3)]
            painted, inside = scene.paint([p.astype(np.float32) for p in points])
            signal += painted / len(depths)
            brain += inside / len(depths)
        dropout = 1 - (rng.random() < 0.05) * rng.uniform(0.3, 0.6)
        images.append(signal * dropout)
        masks.append(brain)

    volume, brain_share = (sitk.GetImageFromArray(np.stack(a).astype(np.float32)) for a in (images, masks))
    if factor > 1:
        volume, brain_share = (sitk.BinShrink(v, (factor, factor, 1)) for v in (volume, brain_share))
    volume = sitk.Multiply(volume, _bias_field(volume, rng))
    clean = sitk.GetArrayFromImage(volume)
    # Magnitude of a complex signal with Gaussian noise: Rician (Gudbjartsson & Patz, doi:10.1002/mrm.1910340618).
    real, imaginary = rng.normal(0, contrast.noise, (2, *clean.shape))
    scale = rng.uniform(200, 1500)
    image = sitk.GetImageFromArray((scale * np.hypot(clean + real, imaginary)).astype(np.float32))
    mask = sitk.Cast(brain_share >= 0.5, sitk.sitkUInt8)
    for volume in (image, mask):
        volume.SetSpacing((contrast.pixel, contrast.pixel, contrast.thickness))
        volume.SetDirection(axes.astype(float).ravel().tolist())
        half = np.array([contrast.size - 1, contrast.size - 1, count - 1]) / 2
        origin = -axes @ (half * [contrast.pixel, contrast.pixel, contrast.thickness])
        volume.SetOrigin(origin.tolist())
    return image, mask


class _Scene:
    """Ellipsoids in painting order: later ones cover earlier ones."""

    def __init__(self, contrast: Contrast, rng: np.random.Generator) -> None:
        self.shapes: list[tuple[Array, Array, float, bool]] = []  # centre, world → unit sphere, brightness, is brain

        def add(
            centre: np.ndarray, radii: tuple[float, ...], turn: np.ndarray, value: float, brain: bool = False
        ) -> None:
            matrix = (turn / np.asarray(radii)).T
            value = float(value * rng.uniform(0.9, 1.1))
            self.shapes.append((centre.astype(np.float32), matrix.astype(np.float32), value, brain))

        identity, nowhere = np.eye(3), np.zeros(3)
        width, depth = rng.uniform(110, 140), rng.uniform(85, 110)
        add(nowhere, (width, depth, 220), identity, contrast.fat)
        add(nowhere, (width - 14, depth - 14, 220), identity, contrast.muscle)
        for _ in range(14):  # bowel, vessels, kidneys: round things that are not a head
            centre = rng.uniform(-1, 1, 3) * [width - 30, depth - 30, 100]
            add(centre, tuple(rng.uniform(7, 26, 3)), _rotation(rng), rng.uniform(*contrast.organ))
        uterus = rng.uniform(-1, 1, 3) * [14, 10, 10]
        add(uterus, tuple(rng.uniform(62, 76, 3)), _rotation(rng), contrast.fluid)
        wall = uterus + _direction(rng) * 55
        add(wall, (rng.uniform(16, 24), 45, 45), _rotation(rng), rng.uniform(*contrast.organ))  # placenta

        turn = _rotation(rng)
        size = rng.uniform(0.8, 1.15)
        head = uterus + _direction(rng) * rng.uniform(0, 20)
        radii = np.array([36.0, 29.0, 31.0]) * size  # front–back, left–right, up–down
        front, side, up = turn.T
        body = head - up * (radii[2] + 26) + front * rng.uniform(-15, 15)
        add(body, (22 * size, 24 * size, 36 * size), turn, contrast.muscle)
        liver = body + up * 6
        add(liver, (16 * size, 18 * size, 14 * size), turn, rng.uniform(*contrast.organ))
        for limb in range(3):
            centre = body + _direction(rng) * 34
            add(centre, (8, 8, rng.uniform(14, 26)), _rotation(rng), contrast.muscle * (1.2 if limb else 0.9))
        add(head, tuple(radii + 7), turn, contrast.muscle)  # scalp and face
        add(head, tuple(radii + 4), turn, contrast.skull)
        for sign in (-1, 1):
            eye = head + front * (radii[0] + 1) + side * sign * 12 * size - up * 12 * size
            add(eye, (6 * size,) * 3, turn, contrast.csf)
        add(head, tuple(radii), turn, contrast.csf, brain=True)
        add(head, tuple(radii - 3 * size), turn, contrast.brain, brain=True)
        for sign in (-1, 1):
            ventricle = head + side * sign * 8 * size - front * 4 * size
            add(ventricle, (14 * size, 3.5 * size, 5 * size), turn, contrast.ventricle, brain=True)
        cerebellum = head - front * 20 * size - up * 16 * size
        add(cerebellum, (9 * size, 16 * size, 8 * size), turn, contrast.brain * 0.85, brain=True)

    def paint(self, points: list[Array]) -> tuple[Array, Array]:
        """Brightness and brain (0 or 1) at points, given as their x, y and z in mm, float32 [height, width] each."""
        signal, brain = np.zeros_like(points[0]), np.zeros_like(points[0])
        for centre, matrix, value, is_brain in self.shapes:
            offset = [p - c for p, c in zip(points, centre, strict=True)]
            inside = sum((m[0] * offset[0] + m[1] * offset[1] + m[2] * offset[2]) ** 2 for m in matrix) < 1
            signal[inside] = value
            brain[inside] = is_brain
        return signal, brain


def _direction(rng: np.random.Generator) -> np.ndarray:
    vector = rng.normal(size=3)
    return np.asarray(vector / np.linalg.norm(vector))


def _rotation(rng: np.random.Generator) -> np.ndarray:
    """A random rotation, uniform over all of them: 3 × 3, columns orthonormal, determinant 1."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return np.asarray(q * np.sign(np.linalg.det(q)))


def _bias_field(volume: sitk.Image, rng: np.random.Generator) -> sitk.Image:
    """A smooth factor around 1, as of a surface coil: the exponential of a cubic B-spline through random values."""
    control = sitk.GetImageFromArray(rng.normal(0, 0.25, (4, 4, 4)).astype(np.float32))
    size = volume.GetSize()
    control.SetSpacing([s / 3 for s in size])
    grid = sitk.Resample(
        control,
        size,
        sitk.Transform(),
        sitk.sitkBSpline,
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
        defaultPixelValue=0.0,
    )
    field = sitk.Exp(grid)
    field.CopyInformation(volume)
    return field
