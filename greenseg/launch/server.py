"""The program that runs are forked from: `python -m greenseg.launch.server FD`, started by `greenseg.launch.workers`.

It imports torch, Lightning and the rest once. Each run is a separate process with these imports, about 20 ms after the
request. Forking is safe because the server computes nothing: it has one thread, no OpenMP team, no autograd engine and
no CUDA context. Its environment keeps OpenBLAS from starting threads, and it reports its number of threads to the
process that started it.

It uses JSON messages over a packet socket. A request is `{"run": directory, "set": {variable: value}, "unset":
[variable]}`, with changes to its initial environment, and with the event pipe and the log of the run as file
descriptors. The replies are `{"started": pid}` and, at the end of the run, `{"ended": pid, "code": …}`; a code below 0
is a signal. The server ends with the process that started it, and asks its runs to end as Ctrl-C does.

Helper processes of Zeus import this module as `__main__`, so heavy imports are inside functions.

The standard library's `multiprocessing.forkserver` starts runs just as fast. But `Process.start` waits for its preload
without a timeout and ignores Ctrl-C, its last output is lost, and if it dies, the exit codes of its runs read as 255
while they still run. The safe parts of forking (one thread, a separate session, the environment, killing the process
group before its ID is free, the joules of the imports) would still be our own code, around its internals.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from greenseg.errors import ExitCode
from greenseg.machine.signals import end_with_parent

# Zeus imports pandas and scikit-learn.
_STACK = ("greenseg.training.run", "greenseg.training.program", "zeus.monitor")
_PATIENCE_SECONDS = 60.0  # for runs to end on request
PACKET = 1 << 20
"""The longest message, in bytes."""


def main(descriptor: int) -> None:
    """Import the stack, then fork runs until the other end of the socket is closed."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they concern the process that started the server
    given = dict(os.environ)
    control = socket.socket(fileno=descriptor)
    for module in _STACK:
        importlib.import_module(module)
    _ask_once()
    gc.collect()
    gc.freeze()  # otherwise the first collection of every run copies all these pages
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    _send(control, {"ready": os.getpid(), "threads": len(list(Path("/proc/self/task").iterdir()))})
    children: set[int] = set()
    while True:
        ready, _, _ = select.select([control.fileno(), reading], [], [])
        if reading in ready:
            os.read(reading, 4096)
            _reap(children, control)
        if control.fileno() in ready:
            packet, descriptors, _, _ = socket.recv_fds(control, PACKET, 2)
            if not packet:
                return _end(children)
            request = json.loads(packet)
            variables = {name: value for name, value in given.items() if name not in request["unset"]} | request["set"]
            pid = _fork(request["run"], variables, descriptors, (control.fileno(), reading, writing))
            for each in descriptors:
                os.close(each)
            children.add(pid)
            _send(control, {"started": pid})


def _ask_once() -> None:
    """Fill caches with values that every run needs."""
    from greenseg import model_names as names
    from greenseg.training.run import versions

    versions()
    names.resolve_encoder("tu-resnet18")


def _send(control: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the receiver is gone: the next read notices it
        control.send(json.dumps(message).encode())


def _fork(run: str, variables: dict[str, str], descriptors: list[int], ours: tuple[int, ...]) -> int:
    server = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.setsid()
        end_with_parent(server)
        with contextlib.suppress(OSError):  # if memory runs out, the kernel should kill the run, not the server
            Path("/proc/self/oom_score_adj").write_text("500")
        for each in ours:
            os.close(each)
        _run(run, variables, *descriptors)
    except KeyboardInterrupt:
        os._exit(ExitCode.INTERRUPTED)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _run(run: str, variables: dict[str, str], events: int, log: int) -> NoReturn:
    from greenseg.training.events import VARIABLE
    from greenseg.training.program import run_and_exit

    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(log)
    os.set_inheritable(events, False)
    os.environ.clear()
    os.environ.update(variables | {VARIABLE: str(events)})
    import torch

    if torch.cuda._is_in_bad_fork():  # a package used CUDA during its import, so only a new program can use it
        os.set_inheritable(events, True)
        os.execv(sys.executable, [sys.executable, "-m", "greenseg.training", run])
    sys.argv = ["greenseg.training", run]
    run_and_exit(Path(run))


def _reap(children: set[int], control: socket.socket | None) -> None:
    """Reap ended runs, and kill processes that they left behind."""
    for pid in list(children):
        # Not reaped yet, so that its ID stays reserved while its group is killed.
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            continue
        _kill(os.killpg, pid, signal.SIGKILL)
        _, status, _ = os.wait4(pid, 0)
        children.discard(pid)
        if control:
            _send(control, {"ended": pid, "code": os.waitstatus_to_exitcode(status)})


def _end(children: set[int]) -> None:
    for pid in children:
        _kill(os.kill, pid, signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while children and time.monotonic() < deadline:
        _reap(children, None)
        time.sleep(0.05)
    for pid in children:
        _kill(os.killpg, pid, signal.SIGKILL)


def _kill(how: Any, pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        how(pid, number)


if __name__ == "__main__":
    main(int(sys.argv[1]))
