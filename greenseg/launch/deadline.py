"""The end of the present batch job: a run that does not fit into the remaining time does not start in it."""

from greenseg.batch_job import Limit
from greenseg.launch.executor import Job
from greenseg.runs.costs import Costs
from greenseg.runs.record import BadRecord
from greenseg.runs.standing import Spent
from greenseg.runs.summary import last_of_each


class Deadline:
    """Decides which runs still fit. Every job makes progress, so that runs that wait for time do so only once.

    Args:
        limit: time limit of the job.
        costs: cost per epoch of runs, from those that have finished so far.
        stop_seconds: seconds before the limit in which runs are asked to stop.
    """

    def __init__(self, limit: Limit, costs: Costs, stop_seconds: float) -> None:
        self._limit, self._costs, self._stop_seconds = limit, costs, stop_seconds

    @property
    def seconds(self) -> float:
        """Seconds that runs have left."""
        return self._limit.left - self._stop_seconds

    def fits(self, job: Job, first: bool) -> bool:
        """Whether a run may start now.

        A run of unknown time may. So may the `first` run of a job, even if it needs longer than a whole job: it
        continues in the next one from its last checkpoint.
        """
        needed = self._needed(job)
        return first or needed is None or needed <= self.seconds

    def finished(self, job: Job) -> None:
        """Learn from a run that has finished."""
        if spent := _spent(job):
            self._costs.add(job.settings, spent)

    def _needed(self, job: Job) -> float | None:
        """Seconds that a run needs, from its own epochs so far if it has any; None if unknown."""
        spent, cost = _spent(job), self._costs.of(job.settings)
        left = max((job.until or job.settings.own_epochs) - (spent.epochs if spent else 0), 0)
        if spent:
            return left * spent.seconds / spent.epochs
        return left * cost.seconds.mean if cost else None


def _spent(job: Job) -> Spent | None:
    """The cost of a run so far; None if it has no epoch, or starts over."""
    try:
        record = None if job.start_over else job.run.record()
        epochs = last_of_each(job.run.epochs()) if record else []
    except BadRecord:
        return None
    if not (record and epochs):
        return None
    joules, seconds = record.metrics.own
    seconds = seconds or sum(epoch.seconds or 0.0 for epoch in epochs)  # a killed process did not record its time
    return Spent(seconds, joules or 0.0, len(epochs))
