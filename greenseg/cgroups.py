"""The cgroups of this process, by which containers and schedulers limit its resources."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def folders(controller: str, root: Path = Path("/")) -> Iterator[Path]:
    """Folders of all cgroups that may limit a resource of this process, from the top; versions 1 and 2.

    Args:
        controller: the resource, `cpu` or `memory`.
        root: folder with `proc/self` and the mount points of cgroups.
    """
    try:
        memberships = (root / "proc/self/cgroup").read_text().splitlines()
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except OSError:  # not Linux
        return
    paths: dict[str, str] = {}  # type of file system → path, for the hierarchy with the controller
    for line in memberships:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            paths["cgroup2"] = path
        elif controller in controllers.split(","):
            paths["cgroup"] = path
    for line in mounts:
        mount, _, file_system = line.partition(" - ")
        kind, _, options = file_system.split(" ", 2)
        if kind in paths and (kind == "cgroup2" or controller in options.split(" ")[-1].split(",")):
            shown, point = (_unescaped(field) for field in mount.split(" ")[3:5])
            top = root / point.lstrip("/")
            yield top
            inside = _inside(paths[kind], shown)
            yield from (top.joinpath(*inside[: depth + 1]) for depth in range(len(inside)))


def _inside(path: str, shown: str) -> tuple[str, ...]:
    """Names of the folders from a mount point down to a cgroup.

    Args:
        path: path of the cgroup in its hierarchy.
        shown: the cgroup at the mount point. A container may see its own cgroup as the top, but know its outer path.
    """
    try:
        parts = PurePosixPath(path).relative_to(shown).parts
    except ValueError:
        return ()
    return () if ".." in parts else parts  # the process was moved out of the cgroup namespace


def _unescaped(field: str) -> str:
    return field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
