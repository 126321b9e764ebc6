"""The masks of a data set in the pixels of their files, kept beside the slices: the figures of a run count on them.

`native.z` has the class numbers of each file, without loss: the lengths of all runs of equal numbers (uint32), then
their numbers (uint8), compressed by zlib. This takes a fourth of the time of compressing the pixels.

The index of the cache has, for each subject and file in the order of the slices, its `slices`, `rows` and `columns`,
the size of a `pixel` in mm (between rows, between columns), and its place in `native.z`: `offset` and `bytes`.
"""

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import SimpleITK as sitk

from greenseg.data.grid import ByteArray

NATIVE = "native.z"
_FAST = 1  # level of zlib


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
        parts.append(_packed(values.reshape(-1)))
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
    runs = np.frombuffer(zlib.decompress(packed.data), np.uint8)
    count = len(runs) // 5
    values = np.repeat(runs[4 * count :], runs[: 4 * count].view(np.uint32))
    return values.reshape(entry["slices"], entry["rows"], entry["columns"])


def _packed(values: ByteArray) -> bytes:
    """All runs of equal numbers, compressed."""
    starts = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
    lengths = np.diff(starts, append=len(values)).astype(np.uint32)
    return zlib.compress(lengths.tobytes() + values[starts].tobytes(), _FAST)


def by_volume(subject: Mapping[str, Any]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The volumes of a subject in the index, each with the entries of its files."""
    files, found = iter(subject["native"]), []
    for volume in subject["volumes"]:
        members: list[dict[str, Any]] = []
        while sum(entry["slices"] for entry in members) < volume["slices"]:
            members.append(next(files))
        found.append((volume, members))
    return found
