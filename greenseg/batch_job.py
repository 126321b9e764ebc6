"""The batch job of a scheduler that this process belongs to."""

import os


def job_id() -> str | None:
    """The job of this process, such as `slurm 17_3` (job 17, task 3 of its array); None outside of a job."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"slurm {array}_{os.environ.get('SLURM_ARRAY_TASK_ID', 0)}"
    job = os.environ.get("SLURM_JOB_ID")
    return f"slurm {job}" if job else None
