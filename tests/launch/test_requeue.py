"""A job that its scheduler has started again takes its own runs back from the host that it was on before."""

from pathlib import Path
from typing import Any

import pytest

from greenseg.batch_job import WORKER, job_id
from greenseg.launch.executor import Job
from greenseg.leases import Holder
from greenseg.settings import Settings
from tests.runs import held_by, record, write

REQUEUED = {WORKER: "slurm-1_0", "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}


@pytest.mark.parametrize(
    ("variables", "attempt", "free"),
    [
        ({}, {}, True),
        ({"SLURM_RESTART_COUNT": ""}, {}, False),
        ({WORKER: ""}, {}, False),  # of several processes of a job, others may live
        ({}, {"job": "slurm 8"}, False),
        ({}, {"pid": 8}, False),  # another process has taken it over since
    ],
)
def test_a_requeued_job_waits_for_no_lease_of_its_own(
    variables: dict[str, str], attempt: dict[str, Any], free: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (REQUEUED | variables).items():
        monkeypatch.setenv(name, value)
    assert job_id() == "slurm 7"
    earlier = {"status": "running", "started": "2026-01-01T00:00:00", "host": "other", "pid": 7, "job": "slurm 7"}
    run = write(tmp_path, record(status="running") | {"attempts": [earlier | attempt]})
    held_by(run, Holder("other", 7, "its/other"), monkeypatch)
    job = Job(Settings(), run)
    assert (job.owner.look() is None) == free
    with run.claim(job.owner) as mine:
        assert (mine is not None) == free
