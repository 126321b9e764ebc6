"""A program of a run in which nothing is trained: it takes the place of `greenseg.training.program` in processes that
are started while `sitecustomize.py` installs it. Imports no torch.
"""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

SITE = "from tests.launch import stub\nstub.install()\n"
"""Of the `sitecustomize.py`."""

ACT = "GREENSEG_STUB_ACT"
"""Environment variable of what a run does if its context does not say so."""

STEPS = 3000
"""Events of every epoch of a run that is to talk much: together more than a pipe holds."""


EPOCH_SECONDS = "GREENSEG_TEST_EPOCH_SECONDS"
"""Variable: the length of an epoch."""


def install() -> None:
    """Put the stub in the place of training, and nothing in that of what takes long to import."""
    _put("greenseg.training.program", run_and_exit=run_and_exit)
    _put("greenseg.training.run", versions=dict)
    _put("zeus.monitor")
    _put("torch", cuda=SimpleNamespace(_is_in_bad_fork=lambda: False))


def _put(name: str, **values: Any) -> None:
    module = ModuleType(name)
    vars(module).update(values)
    sys.modules[name] = module


class _Asked(BaseException):
    pass


def _ask(number: int, frame: Any) -> NoReturn:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # Slurm and the sweep both ask
    raise _Asked


def run_and_exit(directory: Path) -> NoReturn:
    """Do as the context says: finish, fail, talk, last or be deaf; ends this process."""
    from greenseg.runs.directory import RunDirectory
    from greenseg.settings import Settings, read_config
    from greenseg.training import events

    run, settings = RunDirectory(directory), Settings.of(read_config(directory / "config.yaml"))
    with run.claim() as claimed:
        if not claimed:
            os._exit(events.BUSY)
        code = _carry_out(run, settings, json.loads(os.environ[events.CONTEXT]), events.emit)
        sys.stdout.flush()
        os._exit(code)


def _carry_out(run: Any, settings: Any, context: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> int:
    from greenseg.batch_job import job_id
    from greenseg.runs.record import Epoch, Record
    from greenseg.training import events

    over = ("finished", "failed") if events.UNLESS_FAILED in os.environ else ("finished",)
    if run.status() in over and not os.environ.get(events.START_OVER):
        return 0
    act, found = context.get("act") or os.environ.get(ACT, "finish"), run.record()
    before = [each.to_json() for each in found.attempts] if found else []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN if act == "be deaf" else _ask)
    energy = {"train": {"seconds": 0.1, "joules": {"cpu": {"estimate": 1.0}}}}
    attempt: dict[str, Any] = {
        "status": "running", "host": socket.gethostname(), "pid": os.getpid(), "started": str(time.time()),
    }  # fmt: skip
    record = {
        "schema": 1, "identity": settings.identity, "configuration": settings.configuration,
        "settings": settings.resolved(), "context": context, "attempts": [*before, attempt],
    }  # fmt: skip
    if job := job_id():
        attempt["job"] = job

    def save(status: str, **changes: Any) -> None:
        run.write_record(Record.from_json(record | {"status": status, "metrics": {"joules": 1.0}} | changes))

    save("running")
    first = len(run.epochs())
    try:
        for epoch in range(first, settings.epochs):
            if act == "fail" and epoch == 1:
                raise ValueError("no licence")
            for step in range(STEPS if act == "talk" else 1):
                emit({"event": "step", "epoch": epoch, "step": step, "steps": STEPS, "loss": 0.5, "joules": 1.0})
            time.sleep(float(os.environ.get(EPOCH_SECONDS, 0.02)))
            line = {"epoch": epoch, "attempt": len(before), "train_loss": 0.5, "dice": 0.5, "iou": 0.4, "seconds": 0.02}
            parts = {"train": energy["train"], "validation": energy["train"], "attempt_so_far": energy}
            run.append_epoch(Epoch.model_validate(line | parts))
            emit({"event": "epoch", "epoch": epoch})
            while act == "last" and epoch == first + 1:
                time.sleep(0.02)
    except _Asked:
        attempt |= {"status": "interrupted", "energy": energy}
        save("interrupted")
        return 130
    except ValueError as error:
        print(f"ValueError: {error}")
        attempt |= {"status": "failed", "energy": energy}
        save("failed", error={"kind": "error", "type": "ValueError", "message": str(error)})
        return 1
    while act == "be deaf":
        time.sleep(0.02)
    attempt |= {"status": "finished", "energy": energy}
    save("finished")
    return 0
