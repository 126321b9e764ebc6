"""Packs the greenseg that runs into a wheel, whether it is installed from a wheel or editable.

It needs neither the network nor a build backend: a wheel is a zip archive with the package's files and its metadata
(https://packaging.python.org/en/latest/specifications/binary-distribution-format).
"""

import base64
import hashlib
import io
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import greenseg
from greenseg.errors import UserError

_PACKAGE = Path(greenseg.__file__).parent
_EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The same date for every file: equal packages make equal wheels."""


def installed() -> Distribution:
    """The metadata of this greenseg.

    Raises:
        UserError: it runs without being installed.
    """
    try:
        return distribution("greenseg")
    except PackageNotFoundError:
        raise UserError(
            "greenseg is not installed here, so its dependencies are unknown; install it with pip"
        ) from None


def wheel_name() -> str:
    """The file name of the wheel."""
    return f"greenseg-{greenseg.__version__}-py3-none-any.whl"


def wheel() -> bytes:
    """A wheel of this greenseg; the same bytes every time.

    Raises:
        UserError: it is not installed.
    """
    metadata = installed()
    info = f"greenseg-{greenseg.__version__}.dist-info"
    files = {
        f"greenseg/{path.relative_to(_PACKAGE).as_posix()}": path.read_bytes()
        for path in sorted(_PACKAGE.rglob("*"))
        if path.is_file() and not any(map(_is_stray, path.relative_to(_PACKAGE).parts))
    }
    files[f"{info}/METADATA"] = _metadata(metadata).encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: greenseg\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/entry_points.txt"] = _entry_points(metadata).encode()
    if license := _license(metadata):
        files[f"{info}/licenses/LICENSE"] = license.encode()
    lines = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""]).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name, _EARLIEST)
            member.external_attr = 0o644 << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, content)
    return packed.getvalue()


def _is_stray(name: str) -> bool:
    """Whether a file or folder in a checkout is not part of the package, such as the cache of a tool."""
    return name == "__pycache__" or name.startswith(".")


def _license(metadata: Distribution) -> str:
    """The text of the licence, which goes with every copy; empty if this installation lacks it."""
    beside = _PACKAGE.parent / "LICENSE"
    in_checkout = beside.read_text(encoding="utf-8") if beside.is_file() else ""
    return metadata.read_text("licenses/LICENSE") or in_checkout


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _metadata(metadata: Distribution) -> str:
    """The fields that pip needs."""
    known = metadata.metadata
    lines = ["Metadata-Version: 2.1", "Name: greenseg", f"Version: {greenseg.__version__}"]
    for field in ("Summary", "Requires-Python", "Provides-Extra"):
        lines += [f"{field}: {value}" for value in known.get_all(field) or []]
    lines += [f"License: {value}" for value in known.get_all("License-Expression") or known.get_all("License") or []]
    lines += [f"Requires-Dist: {requirement}" for requirement in metadata.requires or []]
    return "\n".join([*lines, ""])


def _entry_points(metadata: Distribution) -> str:
    scripts = [f"{point.name} = {point.value}" for point in metadata.entry_points if point.group == "console_scripts"]
    return "\n".join(["[console_scripts]", *scripts, ""])
