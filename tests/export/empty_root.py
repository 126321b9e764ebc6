"""Carries out a Dockerfile without Docker: in an empty root, without network.

Only `FROM` is replaced. Instead of the base image, the root has this machine's /usr (read-only) and a fresh Python
environment with the packages of this one, except greenseg. So `pip install` finds all that it needs, in the versions
that it is told to install, and needs no network. Everything else (`ENV`, `WORKDIR`, `COPY`, `RUN`) is done as written.

The scripts then run in the same root, which is read-only but for /tmp and the mounts.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path

_PLACE = "opt/python"
_NOBODY = "65534:65534"
_AS_ROOT = os.geteuid() == 0


def problem() -> str:
    """Why this machine cannot make a root of its own; empty if it can."""
    if sys.platform != "linux" or not all(map(shutil.which, ("unshare", "mount", "chroot"))):
        return "needs Linux with unshare, mount and chroot"
    tried = subprocess.run([*_apart(), "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True)
    return tried.stderr.strip().splitlines()[-1] if tried.returncode else ""


def without_network(*command: str) -> list[str]:
    """The command line that runs a command without network."""
    return ["unshare", "--net", *([] if _AS_ROOT else ["--map-root-user"]), *command]


def _apart() -> list[str]:
    return without_network("--mount", "--fork", "--pid")


def instructions(dockerfile: str) -> Iterator[tuple[str, str]]:
    """The instructions of a Dockerfile with their arguments, without comments, and long lines joined."""
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", "").splitlines():
        word, _, rest = line.partition(" ")
        yield word, rest.strip()


class EmptyRoot:
    """A root with nothing but this machine's programs and Python packages.

    Args:
        folder: an empty folder for it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variables = {"PATH": f"/{_PLACE}/bin:/usr/bin:/bin"}
        self.workdir = "/"
        for name in ("usr", "tmp", "dev", "proc", "etc"):
            (folder / name).mkdir()
        for name in ("bin", "sbin", "lib", "lib64"):
            if Path(f"/{name}").is_symlink():
                (folder / name).symlink_to(f"usr/{name}")
        shutil.copy("/etc/ld.so.cache", folder / "etc")
        (folder / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
        self._bound = [Path("/usr"), Path(sys.base_prefix), Path(sysconfig.get_path("purelib"))]
        for path in self._bound:
            (folder / path.relative_to("/")).mkdir(parents=True, exist_ok=True)
        self._make_python()

    def _make_python(self) -> None:
        """A Python environment with links to the packages of this one, except greenseg."""
        venv.create(self.folder / _PLACE, symlinks=True)
        program = self.folder / _PLACE / "bin" / "python"
        for name in ("python", "python3"):
            program.with_name(name).unlink(missing_ok=True)
            program.with_name(name).symlink_to(Path(sys.executable).resolve())
        pip = program.with_name("pip")
        pip.write_text(f'#!/bin/sh\nexec /{_PLACE}/bin/python -m pip "$@"\n')
        pip.chmod(0o755)
        (packages,) = (self.folder / _PLACE / "lib").glob("python3*/site-packages")
        for path in self._bound[-1].iterdir():
            if not path.name.startswith(("greenseg", "__editable__", "__pycache__")) and path.suffix != ".pth":
                (packages / path.name).symlink_to(path)

    def build(self, context: Path) -> None:
        """Carry out the Dockerfile of a folder."""
        for word, rest in instructions((context / "Dockerfile").read_text()):
            if word == "ENV":
                self.variables |= dict(part.split("=", 1) for part in shlex.split(rest))
            elif word == "WORKDIR":
                self.workdir = rest
                self.at(rest).mkdir(parents=True, exist_ok=True)
            elif word == "COPY":
                *sources, target = rest.split()
                for source in sources:
                    self._copy(context / source, self.at(f"{self.workdir}/{target}"))
            elif word == "RUN":
                done = self.run(rest, read_only=False)
                assert done.returncode == 0, f"RUN {rest}\n{done.stdout}{done.stderr}"
            else:
                assert word in ("FROM", "CMD"), word

    def at(self, path: str) -> Path:
        """A path of the root, from outside."""
        return self.folder / path.lstrip("/")

    def _copy(self, source: Path, target: Path) -> None:
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)  # Docker copies the content of a folder
        else:
            shutil.copy(source, target)

    def run(
        self, command: str, mounts: Mapping[str, Path] | None = None, read_only: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command in the root, without network.

        Args:
            command: the command.
            mounts: path in the root → folder.
            read_only: as a user without a name or a home, with a file system that is read-only but for /tmp and the
                mounts. Otherwise as root, as in a build.
        """
        root = shlex.quote(str(self.folder))
        lines = [f"mount --make-rprivate / && mount --bind {root} {root}"]
        lines += [f"mount --rbind {path} {root}{path} && mount -o remount,bind,ro {root}{path}" for path in self._bound]
        lines += [f"mount --bind {shlex.quote(str(path))} {root}{at}" for at, path in (mounts or {}).items()]
        lines += [f"mount -t tmpfs -o mode=1777 none {root}/tmp", f"mount -t proc none {root}/proc"]
        lines += [f"mount -t tmpfs none {root}/dev && mkdir -m 1777 {root}/dev/shm"]
        for device in ("null", "zero", "urandom"):
            lines.append(f"touch {root}/dev/{device} && mount --bind /dev/{device} {root}/dev/{device}")
        lines += [f"mount -o remount,bind,ro {root}"] if read_only else []
        user = [f"--userspec={_NOBODY}"] if read_only and _AS_ROOT else []
        inside = f"cd {self.workdir} && {command}"
        home = {} if read_only else {"HOME": "/root"}
        variables = [f"{name}={value}" for name, value in (self.variables | home).items()]
        chroot = ["chroot", *user, str(self.folder), "/usr/bin/env", "-i", *variables, "/bin/sh", "-c", inside]
        script = "\n".join(["set -e", *lines, f"exec {shlex.join(chroot)}"])
        return subprocess.run([*_apart(), "/bin/sh", "-c", script], capture_output=True, encoding="utf-8", timeout=600)
