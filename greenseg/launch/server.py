"""The program that runs are forked from: `python -m greenseg.launch.server FD`, started by `greenseg.launch.workers`.

It imports torch, Lightning and the rest once; every run is then a process of its own that has them already, some 20 ms
after it was asked for. What makes that safe: it computes nothing, so that it has one thread, no OpenMP team, no
autograd engine and no CUDA context when it forks (OpenBLAS is kept from starting threads by its environment, and the
count of threads is sent to the process that started it).

It speaks JSON over a socket of packets. Asked `{"run": directory, "set": {variable: value}, "unset": [variable]}`, as
changes of the environment that it was given itself, with the run's event pipe and log as file descriptors, it answers
`{"started": pid}`, and `{"ended": pid, "code": …}` when that is over; a code below 0 is a signal's. It ends with the
process that started it, and asks its runs to end, as by Ctrl-C.

Zeus' helper processes import this module as `__main__`: heavy imports stand in functions.

The standard library's `multiprocessing.forkserver` starts a run just as fast, but `Process.start` waits for its preload
without a limit and deaf to Ctrl-C, its last words cannot be had, and when it dies the exit code of its runs reads 255
while they still run. What makes forking safe here (one thread, its own session, the environment, the group that is
killed before its number is free, the joules of the imports) would stay ours to write, around its internals.
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

# Zeus brings pandas and scikit-learn along.
_STACK = ("greenseg.training.run", "greenseg.training.program", "zeus.monitor")
_PATIENCE_SECONDS = 60.0  # for runs that were asked to end
PACKET = 1 << 20
"""The longest message, in bytes."""


def main(descriptor: int) -> None:
    """Import the stack, then fork runs until the other end of the socket is closed."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are for the process that started it
    given = dict(os.environ)
    control = socket.socket(fileno=descriptor)
    for module in _STACK:
        importlib.import_module(module)
    _ask_once()
    gc.collect()
    gc.freeze()  # else the first collection of every run would copy all these pages
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
    """What every run asks for, and Python then remembers."""
    from greenseg import model_names as names
    from greenseg.training.run import versions

    versions()
    names.resolve_encoder("tu-resnet18")


def _send(control: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more: the next reading says so
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
        with contextlib.suppress(OSError):  # where memory runs out, the kernel should choose the run, not us
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

    if torch.cuda._is_in_bad_fork():  # some package asked CUDA something when it was imported: only a new program can
        os.set_inheritable(events, True)
        os.execv(sys.executable, [sys.executable, "-m", "greenseg.training", run])
    sys.argv = ["greenseg.training", run]
    run_and_exit(Path(run))


def _reap(children: set[int], control: socket.socket | None) -> None:
    """Wait for the runs that have ended, and take what they left running with them."""
    for pid in list(children):
        # Not reaped yet, so that its number is its own while its group is killed.
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
