"""Formats of exported networks. One entry in `FORMATS` adds a format. Imports nothing heavy, for `--help`."""

import importlib.util
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from greenseg.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Request:
    """What to export.

    Attributes:
        run: directory of the run.
        given: RUN as the user named it: the same, or the folder of a sweep.
        pick: the choice from a sweep, or an empty text.
        out: the file or folder that the user gets; for messages only, since writers write elsewhere first.
    """

    run: Path
    given: Path
    pick: str
    out: Path


Write = Callable[[Request, Path], list[str]]
"""Writes a network to a path in an empty folder, with the name of OUT; other files in this folder are published beside
OUT. Returns sentences for the user. Raises `UserError` if it cannot; then nothing is published."""


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        about: what it is, in a few words.
        suffix: suffix of its file; empty for a folder.
        function: function that writes it, as `module:name`; see `Write`.
        beside: suffixes of the files beside it.
        marker: for a folder, a file in it. A folder without this file is never replaced.
        packages: modules that it needs besides those of greenseg.
        extra: extra that installs them.
    """

    about: str
    suffix: str
    function: str
    beside: tuple[str, ...] = ()
    marker: str = ""
    packages: tuple[str, ...] = ()
    extra: str = ""

    @property
    def write(self) -> Write:
        """The function that writes it."""
        return pkgutil.resolve_name(self.function)  # type: ignore[no-any-return]

    def paths(self, out: Path) -> list[Path]:
        """All paths that an export to OUT writes, OUT last."""
        return [*(out.with_suffix(suffix) for suffix in self.beside), out]


_BESIDE = (".json", ".md")

FORMATS: dict[str, Format] = {
    "onnx": Format(
        "ONNX, for onnxruntime and other engines",
        ".onnx",
        "greenseg.export.onnx_file:write",
        beside=_BESIDE,
        packages=("onnx", "onnxscript", "onnxruntime"),
        extra="onnx",
    ),
    "torch": Format("a program of torch.export", ".pt2", "greenseg.export.torch_program:write", beside=_BESIDE),
    "monai-bundle": Format(
        "a bundle of MONAI, a folder", "", "greenseg.export.monai_bundle:write", marker="configs/metadata.json"
    ),
    "e2mip": Format(
        "a submission to the E2MIP challenge, a folder",
        "",
        "greenseg.export.e2mip.submission:write",
        marker="inference.sh",
    ),
}
"""Name → format."""


_OTHERS = {".pt", ".pth", ".ckpt", ".ts", ".json", ".md"}
"""Suffixes that are no part of the name of a network."""


def format_for(name: str, out: Path) -> Format:
    """The format with a name, or by the suffix of OUT if there is no name.

    Raises:
        UserError: there is no such format, OUT has the wrong suffix, or a package is missing.
    """
    valid = ", ".join(f"{each} ({about.suffix or 'a folder'})" for each, about in FORMATS.items())
    if not name:
        name = next((each for each, about in FORMATS.items() if about.suffix and about.suffix == out.suffix), "")
        if not name:
            raise UserError(f"{out}: its suffix names no format; use --format, one of {valid}")
    if name not in FORMATS:
        raise UserError(f"--format: no '{name}'{did_you_mean(name, list(FORMATS))}; valid: {valid}")
    found = FORMATS[name]
    suffixes = {each.suffix for each in FORMATS.values() if each.suffix}
    if found.suffix and out.suffix != found.suffix:
        stem = out.with_suffix("") if out.suffix in suffixes | _OTHERS else out
        raise UserError(
            f"{out}: --format {name} writes a {found.suffix} file; name it {stem.with_name(stem.name + found.suffix)}"
        )
    if not found.suffix and out.suffix in suffixes:
        raise UserError(f"{out}: --format {name} writes a folder; name it {out.with_suffix('')}")
    missing = [package for package in found.packages if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(
            f"--format {name} needs {' and '.join(missing)}, the extra '{found.extra}': "
            f"pip install 'greenseg[{found.extra}]'"
        )
    return found
