"""The workers of a sweep in words."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from greenseg.errors import ExitCode
from greenseg.launchers.launcher import Cause, Phase, Worker

_HOSTS = 4

_CODES = {
    ExitCode.USAGE: "wrong input",
    ExitCode.REQUEUE: "stopped in time, with runs left",
    ExitCode.INTERRUPTED: "stopped",
}
"""Exit code of a worker → in words."""

_EXPECTED = {ExitCode.OK, ExitCode.FAILED, ExitCode.INCOMPLETE}
"""Exit codes about which the runs say more."""


def workers_text(workers: Sequence[Worker]) -> str:
    """The workers by state, with the reasons of those that are pending."""
    running = [worker for worker in workers if worker.phase == Phase.RUNNING]
    parts = []
    if running:
        hosts = sorted({worker.host for worker in running if worker.host})
        shown = ", ".join([*hosts[:_HOSTS], *(["…"] if len(hosts) > _HOSTS else [])])
        parts.append(f"{len(running)} running{f' ({shown})' if shown else ''}")
    reasons = Counter(worker.reason for worker in workers if worker.phase == Phase.PENDING)
    parts += [f"{number} pending: {reason}" for reason, number in reasons.items()]
    if over := sum(worker.phase == Phase.ENDED for worker in workers):
        parts.append(f"{over} ended")
    return f"Workers: {', '.join(parts)}"


def end_text(worker: Worker) -> str:
    """Why a worker has ended, if its runs do not say so; else empty."""
    if worker.phase != Phase.ENDED or worker.cause == Cause.DONE:
        return ""
    if worker.cause == Cause.EXITED and worker.code in _EXPECTED:
        return ""
    known = worker.code if worker.cause == Cause.EXITED else None
    why = str(worker.cause) if known is None else _CODES.get(ExitCode(known), "") if known in [*ExitCode] else ""
    why = why or f"exit code {known}"
    if worker.cause == Cause.UNKNOWN:
        why = "for an unknown reason"
    said = last_line(worker) if worker.cause in (Cause.EXITED, Cause.UNKNOWN) else ""
    where = f" on {worker.host}" if worker.host else ""
    return f"Worker {worker.job or worker.name}{where} ended: {why}{f' ({said})' if said else ''}; see {worker.log}"


def last_line(worker: Worker) -> str:
    """The last line of the output of a worker; empty if it has none."""
    try:
        lines = worker.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""


def worker_json(worker: Worker) -> dict[str, Any]:
    """The state of a worker as plain values."""
    return {
        "worker": worker.name,
        "batch_job": worker.job,
        "state": worker.phase,
        "reason": worker.reason or None,
        "host": worker.host or None,
        "cause": worker.cause,
        "exit_code": worker.code,
        "log": str(worker.log),
    }


class Changes:
    """Tells which workers have changed since the last call."""

    def __init__(self) -> None:
        self._known: dict[str, Worker] = defaultdict()

    def of(self, workers: Iterable[Worker]) -> list[Worker]:
        """The workers that are new or have another state."""
        changed = [worker for worker in workers if self._known.get(worker.name) != worker]
        self._known |= {worker.name: worker for worker in changed}
        return changed
