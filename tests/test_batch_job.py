"""What a process knows of the batch job that it belongs to, from its environment."""

import time

import pytest

from greenseg import batch_job


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    batch_job.limit.cache_clear()


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        ("0:07", 7), ("12:30", 750), ("1:00:00", 3600), ("1-00:00:01", 86_401),
        ("UNLIMITED", None), ("INVALID", None), ("NOT_SET", None), ("", None), ("7", None),
    ],
)  # fmt: skip
def test_durations_of_slurm(duration: str, seconds: float | None) -> None:
    assert batch_job.seconds(duration) == seconds


def test_outside_of_a_job_there_is_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(batch_job.WORKER, "1")
    assert batch_job.limit() is None
    assert (batch_job.nodes(), batch_job.restarts()) == (1, 0)
    assert not batch_job.is_worker()


def test_newer_versions_give_the_times_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    now = int(time.time())
    for name, value in (("ID", 7), ("START_TIME", now - 100), ("END_TIME", now + 500)):
        monkeypatch.setenv(f"SLURM_JOB_{name}", str(value))
    limit = batch_job.limit()
    assert limit
    assert limit.seconds == 600
    assert limit.left == pytest.approx(500, abs=10)


def test_without_an_answer_the_limit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", "/nowhere")
    assert batch_job.limit() is None


@pytest.mark.parametrize(
    ("step", "nodes"), [(None, 2), ("0", 1), ("4294967291", 2)], ids=["script", "task of srun", "interactive shell"]
)
def test_a_task_of_srun_has_its_own_node_alone(step: str | None, nodes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    if step:
        monkeypatch.setenv("SLURM_STEP_ID", step)
    assert batch_job.nodes() == nodes
