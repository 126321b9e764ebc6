"""A phantom: synthetic volumes of a fetal head in maternal tissue, without patient data, for tests and demos.

It consists of ellipsoids in millimetres, in the contrasts of three fast sequences (DWI, fMRI, T2w) and with any
direction of the slices. The images have the artefacts of a scanner: partial volume, motion between slices, bias field,
Rician noise. Heads differ in size and position, other round organs compete with them, and some slices have no brain. It
tests the pipeline and does not model anatomy: results on it say nothing about patients.

With tissues or channels, it has the nnU-Net layout, whose dataset.json names both.
"""

import errno
import gzip
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk

from greenseg.data import builtin_phantom
from greenseg.errors import UserError, did_you_mean
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

TISSUES = ("csf", "brain", "ventricles", "cerebellum")
"""Parts of the head that are foreground; label 1 is the first one."""

_OUTSIDE, _CSF, _BRAIN, _VENTRICLES, _CEREBELLUM = range(5)

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


class Drawn(NamedTuple):
    """A volume of the phantom.

    Attributes:
        images: float32 [x, y, slice], one per contrast.
        mask: uint8 on the same grid, 1 in the head's foreground.
        tissues: likewise, with the number of the tissue, from 1 up.
    """

    images: list[sitk.Image]
    mask: sitk.Image
    tissues: sitk.Image


def write_phantom(
    out: Path,
    volumes: int,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    test: int = 0,
    tissues: bool = False,
    channels: Sequence[str] = (),
) -> list[Path]:
    """Write a phantom data set; the same seed writes the same bytes.

    The layout is E2MIP, with the last fifth of the volumes (at least one) for validation, and the rest for training.
    With tissues or channels, it is nnU-Net. The volumes of the test part come on top.

    Args:
        out: folder to create; must not exist, or be empty.
        volumes: number of volumes, at least 2; without channels, contrasts alternate.
        seed: seed of all random numbers.
        progress: called with the number of written volumes and their total.
        test: number of further volumes for the test part; they change no other.
        tissues: masks have a label per tissue, see `TISSUES`, instead of one for all.
        channels: names of contrasts. Each volume has all of them as channels, on the grid of the first.

    Returns:
        The written images.

    Raises:
        UserError: fewer than 2 volumes, an unknown contrast, or `out` is a file or a folder that is not empty.
        OSError: the disk is full, or `out` is not writable.
    """
    if volumes < 2:
        raise UserError(f"--volumes {volumes}: at least 2 are needed, for training and for validation")
    if test < 0:
        raise UserError(f"--test {test}: must be 0 or more")
    if unknown := [name for name in channels if name not in CONTRASTS]:
        hint = did_you_mean(unknown[0], list(CONTRASTS))
        raise UserError(f"--channels {unknown[0]}: no such contrast{hint}; valid: {', '.join(CONTRASTS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not an empty folder; choose another, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    written = []
    try:
        files = _nnunet(volumes, test, seed, tissues, channels) if tissues or channels else _e2mip(volumes, test, seed)
        for i, of_volume in enumerate(files):
            for name, volume, is_mask in of_volume:
                path = unfinished / name
                path.parent.mkdir(parents=True, exist_ok=True)
                sitk.WriteImage(volume, str(path), useCompression=True)
                _check(path)
                if not is_mask:
                    written.append(out / name)
            progress(i + 1, volumes + test)
        if tissues or channels:
            (unfinished / "dataset.json").write_text(_description(volumes, tissues, channels), encoding="utf-8")
        unfinished.chmod(0o755)  # mkdtemp makes private folders, but other users may read data sets
        if out.exists():
            out.rmdir()
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return written


_Files = list[tuple[str, sitk.Image, bool]]
"""The files of a volume: name, content, and whether it is a mask."""


def _alternating(i: int) -> tuple[str, str]:
    """The contrast of a volume without channels, and its name."""
    contrast = list(CONTRASTS)[i % len(CONTRASTS)]
    return contrast, f"{contrast}_case{i // len(CONTRASTS):04d}"


def _e2mip(volumes: int, test: int, seed: int) -> Iterator[_Files]:
    validating = max(1, round(volumes / 5))
    for i in range(volumes + test):
        contrast, subject = _alternating(i)
        split = "validation_data" if i >= volumes - validating else "training_data"
        split = "test_data" if i >= volumes else split
        drawn = draw([CONTRASTS[contrast]], seed, i)
        yield [
            (f"{split}/images/{subject}.nii.gz", drawn.images[0], False),
            (f"{split}/masks/{subject}_mask.nii.gz", drawn.mask, True),
        ]


def _nnunet(volumes: int, test: int, seed: int, tissues: bool, channels: Sequence[str]) -> Iterator[_Files]:
    for i in range(volumes + test):
        part = "Tr" if i < volumes else "Ts"
        contrast, subject = _alternating(i)
        if channels:
            subject = f"case{i:04d}"
        drawn = draw([CONTRASTS[name] for name in channels or [contrast]], seed, i)
        images = [(f"images{part}/{subject}_{n:04d}.nii.gz", image, False) for n, image in enumerate(drawn.images)]
        yield [*images, (f"labels{part}/{subject}.nii.gz", drawn.tissues if tissues else drawn.mask, True)]


def _description(volumes: int, tissues: bool, channels: Sequence[str]) -> str:
    labels = {"background": 0} | {name: n for n, name in enumerate(TISSUES if tissues else ("head",), 1)}
    description = {
        "channel_names": {str(n): name for n, name in enumerate(channels or ("MRI",))},
        "labels": labels,
        "numTraining": volumes,
        "file_ending": ".nii.gz",
    }
    return json.dumps(description, indent=2) + "\n"


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


def draw(contrasts: Sequence[Contrast], seed: int, number: int) -> Drawn:
    """One volume in these contrasts, with an oblique direction, and its masks.

    Args:
        contrasts: the sequences; the first one decides the grid.
        seed: seed of the data set.
        number: number of the volume. Both seed its random numbers; the first contrast does not depend on the others.
    """
    first = contrasts[0]
    rng = np.random.default_rng([seed, number])
    further = [np.random.default_rng([seed, number, n]) for n in range(1, len(contrasts))]
    scene = _Scene(list(zip(contrasts, [rng, *further], strict=True)))
    count, factor = int(rng.integers(first.slices[0], first.slices[1] + 1)), first.subsamples
    axes = _rotation(rng)  # columns: the directions of x, y and the slices in the scene
    fine = first.pixel / factor
    plane = (np.arange(first.size * factor, dtype=np.float32) - (first.size * factor - 1) / 2) * fine
    x, y = np.meshgrid(plane, plane)
    shift, angle = np.zeros(2), 0.0
    signals: list[list[Array]] = []
    shares: list[list[Array]] = []
    for k in range(count):
        # The fetus moves between slices: a slow drift, and now and then a jump.
        shift = 0.8 * shift + rng.normal(0, 1.2, 2) + (rng.random() < 0.08) * rng.normal(0, 5, 2)
        angle = 0.8 * angle + rng.normal(0, 0.02)
        moved = (
            np.cos(angle) * x - np.sin(angle) * y + shift[0],
            np.sin(angle) * x + np.cos(angle) * y + shift[1],
        )
        signal, share = (np.zeros((n, *x.shape), np.float32) for n in (len(contrasts), len(TISSUES)))
        depths = (np.arange(2) - 0.5) * first.thickness / 2 + (k - (count - 1) / 2) * first.thickness
        for z in depths:
            points = [axes[i, 0] * moved[0] + axes[i, 1] * moved[1] + axes[i, 2] * z for i in range(3)]
            painted, tissue = scene.paint([p.astype(np.float32) for p in points])
            signal += painted / len(depths)
            for n in range(len(TISSUES)):
                share[n] += (tissue == n + 1) / len(depths)
        dropout = 1 - (rng.random() < 0.05) * rng.uniform(0.3, 0.6)
        signals.append(list(signal * dropout))
        shares.append(list(share))

    def volume_of(slices: Sequence[Array]) -> sitk.Image:
        volume = sitk.GetImageFromArray(np.stack(slices).astype(np.float32))
        return sitk.BinShrink(volume, (factor, factor, 1)) if factor > 1 else volume

    images = [
        _received(volume_of(slices), contrast, its)
        for slices, contrast, its in zip(zip(*signals, strict=True), contrasts, [rng, *further], strict=True)
    ]
    of_tissue = np.stack([sitk.GetArrayFromImage(volume_of(slices)) for slices in zip(*shares, strict=True)])
    inside = of_tissue.sum(0) >= 0.5
    mask = sitk.GetImageFromArray(inside.astype(np.uint8))
    tissues = sitk.GetImageFromArray(np.where(inside, of_tissue.argmax(0) + 1, 0).astype(np.uint8))
    for volume in (*images, mask, tissues):
        volume.SetSpacing((first.pixel, first.pixel, first.thickness))
        volume.SetDirection(axes.astype(float).ravel().tolist())
        half = np.array([first.size - 1, first.size - 1, count - 1]) / 2
        origin = -axes @ (half * [first.pixel, first.pixel, first.thickness])
        volume.SetOrigin(origin.tolist())
    return Drawn(images, mask, tissues)


def _received(volume: sitk.Image, contrast: Contrast, rng: np.random.Generator) -> sitk.Image:
    """What a scanner makes of a volume: bias field, noise, and a scale of its own."""
    clean = sitk.GetArrayFromImage(sitk.Multiply(volume, _bias_field(volume, rng)))
    # Magnitude of a complex signal with Gaussian noise: Rician (Gudbjartsson & Patz, doi:10.1002/mrm.1910340618).
    real, imaginary = rng.normal(0, contrast.noise, (2, *clean.shape))
    scale = rng.uniform(200, 1500)
    return sitk.GetImageFromArray((scale * np.hypot(clean + real, imaginary)).astype(np.float32))


_Brightness = Callable[[Contrast, np.random.Generator], float]


class _Scene:
    """Ellipsoids in painting order: later ones cover earlier ones."""

    def __init__(self, contrasts: Sequence[tuple[Contrast, np.random.Generator]]) -> None:
        """
        Args:
            contrasts: each with the random numbers for its brightness; those of the first also make the shapes.
        """
        self._contrasts = len(contrasts)
        # Centre, world → unit sphere, brightness in each contrast, tissue.
        self.shapes: list[tuple[Array, Array, list[float], int]] = []
        rng = contrasts[0][1]

        def add(
            centre: np.ndarray, radii: tuple[float, ...], turn: np.ndarray, value: _Brightness, tissue: int = _OUTSIDE
        ) -> None:
            matrix = (turn / np.asarray(radii)).T
            values = [float(value(contrast, its) * its.uniform(0.9, 1.1)) for contrast, its in contrasts]
            self.shapes.append((centre.astype(np.float32), matrix.astype(np.float32), values, tissue))

        def organ(contrast: Contrast, its: np.random.Generator) -> float:
            return its.uniform(*contrast.organ)

        def factor(name: str, by: float = 1.0) -> _Brightness:
            return lambda contrast, its: getattr(contrast, name) * by

        identity, nowhere = np.eye(3), np.zeros(3)
        width, depth = rng.uniform(110, 140), rng.uniform(85, 110)
        add(nowhere, (width, depth, 220), identity, factor("fat"))
        add(nowhere, (width - 14, depth - 14, 220), identity, factor("muscle"))
        for _ in range(14):  # bowel, vessels, kidneys: round things that are not a head
            centre = rng.uniform(-1, 1, 3) * [width - 30, depth - 30, 100]
            add(centre, tuple(rng.uniform(7, 26, 3)), _rotation(rng), organ)
        uterus = rng.uniform(-1, 1, 3) * [14, 10, 10]
        add(uterus, tuple(rng.uniform(62, 76, 3)), _rotation(rng), factor("fluid"))
        wall = uterus + _direction(rng) * 55
        add(wall, (rng.uniform(16, 24), 45, 45), _rotation(rng), organ)  # placenta

        turn = _rotation(rng)
        size = rng.uniform(0.8, 1.15)
        head = uterus + _direction(rng) * rng.uniform(0, 20)
        radii = np.array([36.0, 29.0, 31.0]) * size  # front–back, left–right, up–down
        front, side, up = turn.T
        body = head - up * (radii[2] + 26) + front * rng.uniform(-15, 15)
        add(body, (22 * size, 24 * size, 36 * size), turn, factor("muscle"))
        liver = body + up * 6
        add(liver, (16 * size, 18 * size, 14 * size), turn, organ)
        for limb in range(3):
            centre = body + _direction(rng) * 34
            add(centre, (8, 8, rng.uniform(14, 26)), _rotation(rng), factor("muscle", 1.2 if limb else 0.9))
        add(head, tuple(radii + 7), turn, factor("muscle"))  # scalp and face
        add(head, tuple(radii + 4), turn, factor("skull"))
        for sign in (-1, 1):
            eye = head + front * (radii[0] + 1) + side * sign * 12 * size - up * 12 * size
            add(eye, (6 * size,) * 3, turn, factor("csf"))
        add(head, tuple(radii), turn, factor("csf"), _CSF)
        add(head, tuple(radii - 3 * size), turn, factor("brain"), _BRAIN)
        for sign in (-1, 1):
            ventricle = head + side * sign * 8 * size - front * 4 * size
            add(ventricle, (14 * size, 3.5 * size, 5 * size), turn, factor("ventricle"), _VENTRICLES)
        cerebellum = head - front * 20 * size - up * 16 * size
        add(cerebellum, (9 * size, 16 * size, 8 * size), turn, factor("brain", 0.85), _CEREBELLUM)

    def paint(self, points: list[Array]) -> tuple[Array, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
        """Brightness, float32 [contrasts, height, width], and tissue, uint8 [height, width].

        Args:
            points: their x, y and z in mm, float32 [height, width] each.
        """
        signal = np.zeros((self._contrasts, *points[0].shape), np.float32)
        tissue = np.zeros(points[0].shape, np.uint8)
        for centre, matrix, values, number in self.shapes:
            offset = [p - c for p, c in zip(points, centre, strict=True)]
            inside = sum((m[0] * offset[0] + m[1] * offset[1] + m[2] * offset[2]) ** 2 for m in matrix) < 1
            for of_contrast, value in zip(signal, values, strict=True):
                of_contrast[inside] = value
            tissue[inside] = number
        return signal, tissue


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
