"""Whatever a file holds: a message or slices; no traceback, no crash, no hang, no remains, memory within bounds."""

from pathlib import Path

import pytest

from tests.data.malformed import FORMATS, outcomes


@pytest.mark.timeout(900)
def test_malformed_files(tmp_path: Path) -> None:
    count = 14 * len(FORMATS)
    told = dict(outcomes(0, count, tmp_path))
    assert len(told) == count
    wrong = {seed: outcome for seed, outcome in told.items() if " refused: " not in outcome and " taken" not in outcome}
    assert not wrong
    assert sum(" refused: " in outcome for outcome in told.values()) > count / 3, "else they were hardly malformed"
    assert not list((tmp_path / "cache" / "slices").glob(".*"))
