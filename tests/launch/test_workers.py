"""The server that runs are forked from, where it dies: runs are started all the same."""

import os
import selectors
import sys
from pathlib import Path

import pytest

from greenseg.launch.workers import Process, ServerDied, Workers

AT_ONCE = "raise SystemExit('no licence')"
WHEN_ASKED = """
import socket
control = socket.socket(fileno=int(sys.orig_argv[-1]))
control.send(b'{"ready": 1, "threads": 1}')
control.recv(1 << 20)
os._exit(7)
"""


@pytest.fixture(autouse=True)
def _warm() -> None:
    """Servers are real processes here: they are what is tested."""


def start(workers: Workers, folder: Path) -> Process:
    """Ask for a run, as the launcher does."""
    reading, writing = os.pipe()
    try:
        with (folder / "log").open("wb") as log:
            assert workers.prepare(lambda: True)
            return workers.start(folder, {}, writing, log.fileno(), alone=False)
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize(
    ("program", "deaths", "reason"), [(AT_ONCE, 0, "SystemExit: no licence"), (WHEN_ASKED, 5, "exit code 7")]
)
def test_a_server_that_always_dies_is_given_up(
    program: str,
    deaths: int,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    only = f"if 'greenseg.launch.server' in sys.orig_argv:\n{program}".replace("\n", "\n    ")
    (site / "sitecustomize.py").write_text(f"import os, sys\n{only}\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *sys.path]))
    with selectors.DefaultSelector() as selector, Workers(True, selector) as workers:
        for _ in range(deaths):
            with pytest.raises(ServerDied):
                start(workers, tmp_path)
        process = start(workers, tmp_path)
        assert workers.imports is None, "it is a program of its own"
        assert process.code is None
    assert f"died repeatedly ({reason})" in capfd.readouterr().err


def test_a_server_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\n'greenseg.launch.server' in sys.orig_argv and time.sleep(60)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.setattr("greenseg.launch.workers._START_SECONDS", 0.3)
    with selectors.DefaultSelector() as selector, Workers(True, selector) as workers:
        assert workers.prepare(lambda: True)
        assert workers.imports is None
    assert "Each run is now a separate program" in capfd.readouterr().err
