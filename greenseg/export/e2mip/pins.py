"""The exact versions of what greenseg needs, as this environment has them."""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

_IMAGE = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"}
"""Where the versions will be installed, for the conditions in requirements."""


def pins(requirements: Iterable[str], extras: Iterable[str] = ()) -> dict[str, str]:
    """Package → version, for all that is installed here among the requirements and theirs.

    A local part of a version, such as `+cpu` of torch, names a build that the package index does not have; it is left
    out.

    Args:
        requirements: requirements with their conditions, as `Distribution.requires` has them.
        extras: the extras of the package whose requirements these are.
    """
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    to_do = [(text, extra) for text in requirements for extra in ("", *extras)]
    while to_do:
        text, extra = to_do.pop()
        if (text, extra) in seen:
            continue
        seen.add((text, extra))
        needed = Requirement(text)
        if needed.marker and not needed.marker.evaluate({**_IMAGE, "extra": extra}):
            continue
        try:
            installed = distribution(needed.name)
        except PackageNotFoundError:
            continue  # on another system than the image's, some are not
        found[canonicalize_name(needed.name)] = Version(installed.version).public
        to_do += [(each, of) for each in installed.requires or [] for of in ("", *needed.extras)]
    return dict(sorted(found.items()))
