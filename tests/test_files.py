"""Where files are kept, and what is said where they cannot be."""

import errno
import fcntl
import os
import pwd
import re
from pathlib import Path
from typing import Any, NoReturn

import pytest
import SimpleITK as sitk

from greenseg.data import phantom as phantoms
from greenseg.data.fingerprint import digests
from greenseg.errors import UserError
from greenseg.files import cache_folder, keep, locked, recall
from tests.conftest import SMALL, Command
from tests.runs import record, write

NOWHERE = "/proc/no/cache"  # where not even root can make a folder


def raising(number: int) -> Any:
    def fail(*arguments: Any) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container with a user whom it does not know."""

    def unknown(*arguments: Any) -> NoReturn:
        raise KeyError

    for name in ("HOME", "GREENSEG_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_the_variable_to_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no home folder .* set GREENSEG_CACHE"):
        cache_folder()
    keep("x.json", 1)
    assert recall("x.json") is None
    monkeypatch.setenv("GREENSEG_CACHE", str(tmp_path))
    keep("x/y.json", {"a": 1})
    assert recall("x/y.json") == {"a": 1}


def test_the_cache_may_be_named_from_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GREENSEG_CACHE", "~/cache")
    assert cache_folder() == tmp_path / "cache"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_named(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", raising(number))
    with (
        pytest.raises(UserError, match=rf"^{tmp_path}/a: its file system has no locks .*; do this$"),
        locked(tmp_path / "a" / "lock", "do this"),
    ):
        pass
    running = write(tmp_path, record(status="running"))
    (running.path / ".lock").touch()
    assert running.status() == "interrupted", "a report needs no locks"
    with running.claim() as mine:
        assert mine, "a lease is enough"
        assert running.status() == "running", "without locks, its process may live"


def test_a_folder_that_cannot_be_written_is_named_and_a_full_one_is_no_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pytest.raises(UserError, match=rf"^{NOWHERE}: cannot be written to: .*; do this$"),
        locked(Path(NOWHERE, "lock"), "do this"),
    ):
        pass
    monkeypatch.setattr(Path, "open", raising(errno.ENOSPC))
    with (
        pytest.raises(OSError, match=r"No space left on device; .*, or do this") as caught,
        locked(tmp_path / "lock", "do this"),
    ):
        pass
    assert caught.value.filename == str(tmp_path)


def test_what_is_only_convenient_needs_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("content")
    monkeypatch.setenv("GREENSEG_CACHE", NOWHERE)
    assert digests([tmp_path / "file"]) == digests([tmp_path / "file"])


@pytest.mark.parametrize(
    ("options", "variables", "expected"),
    [
        ([], {"GREENSEG_CACHE": NOWHERE}, f"error: {NOWHERE}/slices: cannot be written to: .* set GREENSEG_CACHE to"),
        (["--data", "phantom"], {"GREENSEG_CACHE": NOWHERE}, f"error: {NOWHERE}: cannot be .* set GREENSEG_CACHE to"),
        (["--out", "/proc/no/runs"], {}, "error: .*/proc/no/runs: .* set --out to"),
    ],
)
def test_a_run_that_cannot_write_says_so_in_a_line(
    options: list[str], variables: dict[str, str], expected: str, greenseg: Command, phantom: Path
) -> None:
    ended = greenseg("train", *SMALL, "--data", phantom, *options, **variables)
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert re.match(expected, ended.stderr), ended.stderr


@pytest.mark.parametrize("whole", [0, 1000])
def test_a_phantom_that_the_disk_cut_is_not_kept(whole: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image = sitk.WriteImage

    def cut(image: Any, path: str, **options: Any) -> None:
        write_image(image, path, **options)
        os.truncate(path, whole)  # as ITK does where the disk is full, without a word

    monkeypatch.setattr(sitk, "WriteImage", cut)
    monkeypatch.setenv("GREENSEG_CACHE", str(tmp_path))
    with pytest.raises(OSError, match=r"No space left on device; .*, or set GREENSEG_CACHE to"):
        phantoms.builtin()
    assert list(tmp_path.iterdir()) == []
