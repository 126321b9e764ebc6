"""What the launcher starts here is forked from a warm process, where that makes no difference to it."""

import subprocess

import pytest

from tests import warm


@pytest.fixture(autouse=True)
def _warm(monkeypatch: pytest.MonkeyPatch) -> None:
    warm.start()  # before a test changes PYTHONPATH
    monkeypatch.setattr(subprocess, "Popen", warm.Popen)
