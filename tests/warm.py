"""Python programs that start in milliseconds: each is forked from a process that has imported torch and the rest.

`Popen` and `run` are those of `subprocess`, and start the same program with the same files, environment, folder and
signals. A program is forked where nothing that it could notice differs from a new Python (see `_suits`), and started as
usual otherwise. It is a real process and a real child of its starter, so that waiting, killing and process groups work:
the warm process forks twice, and a `greenseg` command has a warm process of its own for the runs that it starts, as a
run has for its ranks.

What is forked has its imports already. A test of imports, of their cost, or of how Python itself starts must use
`subprocess`.
"""

import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib
import io
import json
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import types
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NoReturn

from greenseg.energy import neighbours

_STACK = (
    "greenseg.cli", "greenseg.data.check", "greenseg.data.phantom", "greenseg.energy.doctor", "greenseg.launch.prepare",
    "greenseg.launch.queue", "greenseg.launch.server", "greenseg.report.answer", "greenseg.report.export",
    "greenseg.report.picture", "greenseg.training.program", "greenseg.training.run", "nibabel", "pydicom.pixels",
    "timm.optim", "torch._dynamo", "torch.distributed.checkpoint.state_dict", "torch.distributed.tensor",
    "torch.utils.serialization.config", "zeus.monitor", "rich.live", "rich.progress", "rich.table",
)  # fmt: skip
"""Not `greenseg.cli.view`: when it is imported, it looks at the terminal."""

_STARTERS = ("greenseg", "greenseg.training", "tests.energy.two_ranks")
"""Programs that start other Pythons."""

_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "HF_", "TORCH", "OMP_", "KMP_", "MPL")
"""What the names of variables begin with that count only when Python, or a library, starts."""

_GIVEN_LATER = {"PYTHONUNBUFFERED", "PYTHONIOENCODING", "PYTHONUTF8"}
"""Those of them that a fork can heed."""

SITE = "GREENSEG_TEST_SITE"
"""Variable: a folder at the head of PYTHONPATH whose `sitecustomize.py` does as well after imports as before them."""

COLD = "GREENSEG_TEST_COLD"
"""Variable: a module that starts as a Python of its own, however it is started."""

METERS = "GREENSEG_TEST_METERS"
"""Variable: the folder in which meters of these tests find each other, and no others."""

_ROOT = Path(__file__).parents[1]
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 15, 36  # prctl(2)
_prctl = ctypes.CDLL(None).prctl


def meet_in(folder: Path) -> None:
    """Have the meters of this process, and of all that are forked from it, look for others in this folder alone."""
    neighbours._fixed_folders = lambda: (folder,)


class _Warm:
    """The way to a warm process, a child of this one."""

    def __init__(self, control: socket.socket, given: Mapping[str, str]) -> None:
        self.control, self.given = control, given
        control.settimeout(180)
        self.session = os.getsid(0)
        self.lock = threading.Lock()

    def start(self, request: dict[str, Any], descriptors: list[int]) -> int:
        """Have a program forked; returns its process ID once it is a child of this process."""
        with self.lock, os.fdopen(os.memfd_create("request"), "r+b") as file:
            file.write(json.dumps(request).encode())
            file.flush()
            _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # its parent ends, and it becomes a child of this process
            try:
                socket.send_fds(self.control, [b"!"], [file.fileno(), *descriptors])
                return int(self.control.recv(64))
            finally:
                _prctl(_PR_SET_CHILD_SUBREAPER, 0)


_warm: _Warm | None = None
_start = subprocess.Popen  # `Popen` may stand in its place


def _way() -> _Warm:
    """To the warm process of this one; the first time, it is started."""
    global _warm
    if _warm is None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        given = dict(os.environ)
        threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
        with its:
            _start(
                [sys.executable, "-c", f"from tests.warm import _main; _main({its.fileno()})"],
                cwd=_ROOT, env=given | threads, pass_fds=(its.fileno(),), stdin=subprocess.DEVNULL,
            )  # fmt: skip
        _warm = _Warm(ours, given)
    return _warm


def start() -> None:
    """Start the warm process now, unless it is there: its environment is the present one."""
    _way()


class Popen(subprocess.Popen[Any]):
    """`subprocess.Popen`, warm where that makes no difference."""

    def _execute_child(
        self, args: Any, executable: Any, preexec_fn: Any, close_fds: bool, pass_fds: Any, cwd: Any, env: Any,
        startupinfo: Any, creationflags: Any, shell: bool, p2cread: int, p2cwrite: int, c2pread: int, c2pwrite: int,
        errread: int, errwrite: int, restore_signals: bool, gid: Any, gids: Any, uid: Any, umask: int,
        start_new_session: bool, process_group: int,
    ) -> None:  # fmt: skip
        variables = dict(os.environ if env is None else env)
        unusual = shell or executable or preexec_fn or gid is not None or gids or uid is not None or umask >= 0
        if unusual or process_group != -1 or not close_fds or not _suits(args, variables, start_new_session):
            getattr(super(), "_execute_child")(  # noqa: B009 - unknown to the stubs
                args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell,
                p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, restore_signals, gid, gids, uid, umask,
                start_new_session, process_group,
            )  # fmt: skip
            return
        standard = [
            own if given == -1 else given for own, given in ((0, p2cread), (1, c2pwrite), (2, errwrite))
        ]  # -1: this process's
        request = {
            "args": [os.fspath(each) for each in args],
            "cwd": os.path.abspath(cwd or "."),  # noqa: PTH100 - not resolved
            "env": variables,
            "affinity": sorted(os.sched_getaffinity(0)),
            "ignored": [n for n in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(n) == signal.SIG_IGN],
            "file size": resource.getrlimit(resource.RLIMIT_FSIZE),
            "session": start_new_session,
            "pass": list(pass_fds),
        }
        self.pid = _way().start(request, [*standard, *pass_fds])
        self._child_created = True
        getattr(self, "_close_pipe_fds")(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # noqa: B009


def run(
    args: Any, *, capture_output: bool = False, timeout: float | None = None, check: bool = False, **options: Any
) -> "subprocess.CompletedProcess[Any]":
    """`subprocess.run`, warm where that makes no difference."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(args, **options) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(process.args, process.returncode, output, errors)
    if check:
        done.check_returncode()
    return done


def _suits(args: Any, variables: Mapping[str, str], new_session: bool) -> bool:
    """Whether a fork does as well as a new Python."""
    if sys.platform != "linux" or isinstance(args, str) or list(args)[:1] != [sys.executable] or len(args) < 2:
        return False
    if args[1] not in ("-m", "-c") and args[1].startswith("-"):
        return False
    if list(args)[1:3] == ["-m", variables.get(COLD)]:
        return False
    way = _way()
    started = {name for name in {*variables, *way.given} if name.startswith(_AT_START)} - _GIVEN_LATER
    same = all(variables.get(name) == way.given.get(name) for name in started - {"PYTHONPATH"})
    path = variables.get("PYTHONPATH")
    site = SITE in variables and path is not None and path.split(os.pathsep)[0] == variables[SITE]
    same &= site or path in (way.given.get("PYTHONPATH"), str(_ROOT))
    encoding = variables.get("PYTHONIOENCODING", "utf-8").partition(":")[0]
    plain = variables.get("PYTHONUTF8") in (None, "1") and encoding == "utf-8"
    return same and plain and (new_session or os.getsid(0) == way.session)


# ── in the warm process


def _main(descriptor: int) -> None:
    """Import everything, and fork programs until the process that started this one ends."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    given = dict(os.environ)
    control = socket.socket(fileno=descriptor)
    control.set_inheritable(False)
    for module in _STACK:
        importlib.import_module(module)
    with contextlib.suppress(ImportError):  # an extra
        importlib.import_module("matplotlib.figure")
        importlib.import_module("matplotlib.backends.backend_agg")
        importlib.import_module("matplotlib.backends.backend_svg")
    importlib.import_module("greenseg.launch.server")._ask_once()
    if METERS in os.environ:
        meet_in(Path(os.environ[METERS]))
    gc.collect()
    gc.freeze()
    sys.path.remove("")
    assert "greenseg.cli.view" not in sys.modules
    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, f"{threads} threads: not safe to fork"
    _serve(control, given, os.getppid())


def _serve(control: socket.socket, given: Mapping[str, str], parent: int) -> NoReturn:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    while os.getppid() == parent:
        packet, descriptors, _, _ = socket.recv_fds(control, 1, 250)
        if not packet:
            break
        between = os.fork()
        if not between:
            if os.fork():
                os._exit(0)
            _begin(control, given, parent, descriptors)
        for each in descriptors:
            os.close(each)
        os.waitpid(between, 0)
    os._exit(0)


def _begin(control: socket.socket, given: Mapping[str, str], parent: int, descriptors: list[int]) -> NoReturn:
    """Become the program that was asked for."""
    code = 1
    try:
        with os.fdopen(descriptors[0], "rb") as file:
            file.seek(0)
            request = json.loads(file.read())
        deadline = time.monotonic() + 300
        while os.getppid() != parent:
            os.kill(parent, 0)  # an error, and the end, where the starter was killed meanwhile
            assert time.monotonic() < deadline
            time.sleep(0.0002)
        control.send(str(os.getpid()).encode())
        control.close()
        _take_over(request, descriptors[1:])
        if request["args"][1] == "-m":
            _prctl(_PR_SET_NAME, request["args"][2].rpartition(".")[2].encode(), 0, 0, 0)  # tells `server` from `run`
        if request["args"][1] == "-m" and request["args"][2] in _STARTERS:
            _have_warm(given)
        code = _interpret(request["args"])
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def _take_over(request: dict[str, Any], descriptors: list[int]) -> None:
    """Files, folder, environment and signals, as after `exec`."""
    # First move all above the highest number in use, so that none overwrites another.
    targets = [0, 1, 2, *request["pass"]]
    moved = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, max(targets) + 1) for each in descriptors]
    for each, target in zip(moved, targets, strict=True):
        os.dup2(each, target)  # inheritable, as passed
    for each in range(3, max(moved) + 1):
        if each not in targets:
            with contextlib.suppress(OSError):
                os.close(each)
    if request["session"]:
        os.setsid()
    os.sched_setaffinity(0, request["affinity"])
    resource.setrlimit(resource.RLIMIT_FSIZE, request["file size"])
    for number in (signal.SIGINT, signal.SIGHUP):
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in request["ignored"] else default)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - a descriptor, open to the end
    sys.stdout, sys.stderr = _writer(1), _writer(2)
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, f"__{name}__", getattr(sys, name))


def _writer(descriptor: int) -> io.TextIOWrapper:
    errors = os.environ.get("PYTHONIOENCODING", "").partition(":")[2]
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    raw: IO[bytes] = open(descriptor, "wb", 0, closefd=False)  # noqa: SIM115
    return io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),
        encoding="utf-8",
        errors="backslashreplace" if descriptor == 2 else errors or "strict",
        line_buffering=descriptor == 2 or os.isatty(descriptor),
        write_through=unbuffered,
    )


def _have_warm(given: Mapping[str, str]) -> None:
    """Have this program start its Pythons warm as well, from a copy of what it is now."""
    global _warm
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    if os.fork() == 0:
        ours.close()
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):  # otherwise, a reader of the program's output would also wait for this process
            os.dup2(null, descriptor)
        _serve(its, given, parent)
    its.close()
    _warm = _Warm(ours, given)
    subprocess.Popen = Popen  # type: ignore[misc]


def _interpret(args: list[str]) -> int:
    """Do what Python does with such a command line; returns the exit code."""
    sys.orig_argv = list(args)
    code = 0
    try:
        if SITE in os.environ:
            sys.path.insert(0, os.environ[SITE])
            runpy.run_path(os.path.join(os.environ[SITE], "sitecustomize.py"))  # noqa: PTH118
        if args[1] == "-m":
            sys.argv = ["-m", *args[3:]]
            sys.path.insert(0, os.getcwd())  # noqa: PTH109
            if args[2] != "greenseg":
                sys.modules.pop(args[2], None)  # imported already: runpy would warn
            runpy.run_module(args[2], run_name="__main__", alter_sys=True)
        else:
            given = args[1] == "-c"
            sys.argv = ["-c", *args[3:]] if given else args[1:]
            sys.path.insert(0, "" if given else os.path.dirname(args[1]))  # noqa: PTH120 - as Python does
            main = types.ModuleType("__main__")
            sys.modules["__main__"] = main
            if not given:
                main.__file__ = args[1]
            text = args[2] if given else Path(args[1]).read_text(encoding="utf-8")
            exec(compile(text, "<string>" if given else args[1], "exec"), main.__dict__)
    except SystemExit as ended:
        if ended.code is not None and not isinstance(ended.code, int):
            print(ended.code, file=sys.stderr)
        code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
        code = 1
    getattr(threading, "_shutdown")()  # noqa: B009 - what Python does at its end
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return code & 0xFF
