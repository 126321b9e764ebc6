"""`greenseg doctor`."""

import json

from tests.conftest import Command


def test_doctor_says_what_can_be_measured_and_what_to_do(greenseg: Command) -> None:
    result = greenseg("doctor", "--json", "--idle", "0.2")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert set(found["components"]) == {"gpu", "cpu", "dram"}
    for how in found["components"].values():
        assert how["source"] in ("nvml", "rapl", "estimate", "none")
        if how["source"] in ("estimate", "none"):
            assert how["why"]
            assert how["remedy"]
    assert "cpu" in found["run"]["accelerators"]
    assert "ddp" in found["run"]["strategies"]
    if "gpu" not in found["run"]["accelerators"]:
        assert "not on CPUs" in found["run"]["strategies_missing"]["deepspeed_stage_2"]
    assert (
        found["estimate"]["core_watts"][1] <= found["estimate"]["core_watts"][0] <= found["estimate"]["core_watts"][2]
    )

    shown = greenseg("doctor", "--idle", "0")
    assert shown.returncode == 0
    for text in ("cpu energy", "dram energy", "gpu energy", "estimate", "strategies", "slurm"):
        assert text in shown.stdout
