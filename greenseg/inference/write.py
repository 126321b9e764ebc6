"""Writing masks and probabilities in the geometry of an image."""

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from greenseg.data import detached, nifti
from greenseg.data.listing import stem_of
from greenseg.data.placement import as_stored
from greenseg.errors import UserError
from greenseg.files import write_atomically
from greenseg.inference.subject import Image

_ONE_FILE = {".nhdr": ".nrrd", ".mhd": ".mha"}
_WRITTEN = (".nii.gz", ".nii", ".nrrd", ".mha")
_LEVEL = 4  # of gzip: higher ones take longer and save little on masks


def suffix_for(image: Path) -> str:
    """The suffix of a mask for an image: that of the image if possible, in one file; else `.nii.gz`."""
    name = image.name.lower()
    found = next((s for s in (*_WRITTEN, *_ONE_FILE) if name.endswith(s)), ".nii.gz") if stem_of(image) else ".nii.gz"
    return ".nii.gz" if image.is_dir() else _ONE_FILE.get(found, found)


def write_like(values: np.ndarray[Any, Any], image: Image, path: Path) -> None:
    """Write an array in the geometry of an image, atomically.

    Size, spacing, origin and directions are those of the image's file, with its axes. From NIfTI to NIfTI, sform, qform
    and their codes are copied, since ITK writes others.

    Args:
        values: [slices, rows, columns], uint8, uint16, uint32 or float32.
        image: image with the geometry.
        path: file to write, with a suffix from `suffix_for`.

    Raises:
        OSError: the disk is full or the folder is not writable.
    """
    volume = sitk.GetImageFromArray(values)
    volume.CopyInformation(image.channels[0])
    result = as_stored(volume, image.stored)
    result.CopyInformation(image.stored)
    source = image.paths[0]
    if path.name.endswith((".nii", ".nii.gz")) and not source.is_dir() and source.name.lower().endswith(nifti.SUFFIXES):
        largest = 1 if values.dtype.kind == "f" else int(values.max(initial=0))
        content = nifti.mask_like(source, sitk.GetArrayViewFromImage(result), largest)
        write_atomically(path, gzip.compress(content, _LEVEL, mtime=0) if path.name.endswith(".gz") else content)
        return
    _write_with_itk(result, path)


def _write_with_itk(image: sitk.Image, path: Path) -> None:
    """Write an image atomically. ITK may not notice that a disk is full, so the file is checked before it counts."""
    suffix = next(s for s in _WRITTEN if path.name.endswith(s))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{suffix}")  # ITK needs the suffix
    try:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
            if problem := _incomplete(temporary):
                raise RuntimeError(problem)
        except RuntimeError as error:
            # The system says why: no space, no permission.
            temporary.write_bytes(bytes(sitk.GetArrayViewFromImage(image).nbytes))
            raise UserError(f"{path}: cannot be written: {str(error).strip().splitlines()[-1]}") from None
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _incomplete(path: Path) -> str | None:
    if not path.name.endswith(nifti.SUFFIXES):
        return detached.problem_of(path)
    try:
        nifti.read(path)
    except UserError as error:
        return str(error)
    return None
