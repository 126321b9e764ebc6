"""The masks of a data set in the pixels of their files, kept beside the slices: the figures of a run count on them.

`native.z` has the class numbers of each file, compressed without loss. The index of the cache has, for each subject and
file in the order of the slices, its `slices`, `rows` and `columns`, the size of a `pixel` in mm (between rows, between
columns), and where the file begins: `offset` and `bytes`.
"""

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import SimpleITK as sitk

from greenseg.data.grid import ByteArray

NATIVE = "native.z"
_FAST = 1  # level of zlib: masks are runs of equal numbers, which the fastest one shrinks a hundred times, too


def packed(masks: Iterable[sitk.Image], offset: int) -> tuple[list[dict[str, Any]], ByteArray]:
    """The entries of a subject's masks for the index, and their bytes for the end of `native.z`.

    Args:
        masks: class numbers, uint8 [x, y, slice], in the order of the slices in the cache.
        offset: size of `native.z` so far.
    """
    entries, parts = [], list[bytes]()
    for mask in masks:
        values = sitk.GetArrayViewFromImage(mask)
        across, down, _ = mask.GetSpacing()
        slices, rows, columns = values.shape
        parts.append(zlib.compress(np.ascontiguousarray(values).data, _FAST))
        size = {"slices": slices, "rows": rows, "columns": columns, "pixel": [down, across]}
        entries.append({**size, "offset": offset, "bytes": len(parts[-1])})
        offset += len(parts[-1])
    return entries, np.frombuffer(b"".join(parts), np.uint8)


def read(content: ByteArray, entry: Mapping[str, Any]) -> ByteArray:
    """The mask of a file: uint8 [slices, rows, columns], 0 background, from 1 up the classes, 255 not annotated.

    Args:
        content: bytes of `native.z`.
        entry: its entry in the index.
    """
    packed = content[entry["offset"] : entry["offset"] + entry["bytes"]]
    values = np.frombuffer(zlib.decompress(packed.data), np.uint8)
    return values.reshape(entry["slices"], entry["rows"], entry["columns"])


def by_volume(subject: Mapping[str, Any]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The volumes of a subject in the index, each with the entries of its files."""
    files, found = iter(subject["native"]), []
    for volume in subject["volumes"]:
        members: list[dict[str, Any]] = []
        while sum(entry["slices"] for entry in members) < volume["slices"]:
            members.append(next(files))
        found.append((volume, members))
    return found
