"""What the tests of energy share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.energy.fakes import look_for_rapl_in


@pytest.fixture
def rapl_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Zeus looks for RAPL in an empty folder, and forgets it afterwards."""
    from zeus.device.cpu import rapl

    root = tmp_path / "powercap"
    root.mkdir()
    look_for_rapl_in(root, monkeypatch.setattr)
    yield root
    rapl.rapl_is_available.cache_clear()
