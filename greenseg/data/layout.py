"""Finds the images, masks and subjects of a data set in the supported layouts."""

from collections.abc import Callable, Iterator
from pathlib import Path

from greenseg.data.bids import list_bids
from greenseg.data.e2mip import list_e2mip
from greenseg.data.listing import BROKEN, EXPECTED, SUFFIXES, Entry, Listing
from greenseg.data.nnunet import is_nnunet, list_nnunet
from greenseg.data.table import list_csv
from greenseg.errors import UserError
from greenseg.settings import Layout


def look(root: Path, layout: Layout = "auto", channels: str = "") -> Listing:
    """List a data set.

    Args:
        root: folder of the data set, or a CSV file.
        layout: layout of the data set; auto = detect it.
        channels: the setting: names of channels, with commas between them; empty = those of the layout.

    Raises:
        UserError: there is no such folder or file.
    """
    if not root.exists():
        raise UserError(
            f"{root}: no such folder; --data needs a data set in one of these layouts:\n{EXPECTED}\n"
            f"  Leave --data out to use the built-in phantom."
        )
    wanted = tuple(channels.split(",")) if channels else ()
    found = Listing(_layout_of(root) if layout == "auto" else layout, wanted)
    if root.is_dir() and found.layout == "csv":
        raise UserError(f"{root}: is a folder; layout csv needs a CSV file")
    if root.is_file() and (found.layout != "csv" or (layout == "auto" and root.suffix.lower() != ".csv")):
        raise UserError(f"{root}: is a file; a data set is a folder, or a CSV file:\n{EXPECTED}")
    _LISTERS[found.layout](root, found)
    if not found.entries and not found.problems:
        found.problems.append(f"{root}: no images ({', '.join(SUFFIXES)}) in layout {found.layout}")
    found.problems += [
        f"{entry.where}: the name is not UTF-8; rename it" for entry in found.entries if not _is_text(entry)
    ]
    found.entries = [entry for entry in found.entries if _is_text(entry)]
    found.problems += _contradictions(found)
    found.problems += [
        f"{path}: {BROKEN}"
        for entry in found.entries
        for path in (*entry.images, entry.mask)
        if path and not (path.is_file() or path.is_dir())
    ]
    found.problems = [problem.encode(errors="backslashreplace").decode() for problem in found.problems]
    return found


def _layout_of(root: Path) -> str:
    if root.is_file():
        return "csv"
    if is_nnunet(root):
        return "nnunet"
    if any(path.is_dir() for path in root.glob("sub-*")):
        return "bids"
    return "e2mip"


def _is_text(entry: Entry) -> bool:
    """Whether the names of an entry can be printed, hashed and written to a file: on Linux, they may be any bytes."""
    try:
        f"{''.join(map(str, entry.images))}{entry.mask}{entry.subject}".encode()
    except UnicodeEncodeError:
        return False
    return True


def _contradictions(found: Listing) -> Iterator[str]:
    first: dict[Path, Entry] = {}
    split_of: dict[str, Entry] = {}
    for entry in found.entries:
        if len(set(entry.images)) < len(entry.images):
            yield f"{entry.where}: one image is two channels: {', '.join(map(str, entry.images))}"
        for image in entry.images:
            if (same := first.setdefault(image, entry)) is not entry:
                yield f"{entry.where}: duplicate; {image} was listed before ({same.where})"
        earlier = split_of.setdefault(entry.subject, entry)
        if earlier.split != entry.split:
            here, there = (e.split or "training or validation" for e in (entry, earlier))
            reason = found.in_two_splits.get(entry.subject)
            yield (
                f"{entry.where}: subject '{entry.subject}' is in two splits, {here} here and {there} in "
                f"{earlier.where}; keep each subject in one split{f' ({reason})' if reason else ''}"
            )
            split_of[entry.subject] = entry  # one message per change, not per file


_LISTERS: dict[str, Callable[[Path, Listing], None]] = {
    "e2mip": list_e2mip,
    "nnunet": list_nnunet,
    "bids": list_bids,
    "csv": list_csv,
}
