"""Starts workers on this machine, in the background."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar

import psutil

from greenseg.errors import UserError
from greenseg.launchers import script
from greenseg.launchers.launcher import NotStarted, Option, Phase, Submission, Worker, ended


class Local:
    """Workers that are processes of this machine, each a session of its own that no terminal ends.

    Its processes are known by their command, which has the name of the submission: no process identifier is kept, so
    none can be mistaken for another process.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {}
    NODES: ClassVar[bool] = False

    def problems(self) -> list[str]:
        """Reasons why this launcher cannot be used on this machine."""
        return [] if shutil.which("bash") else ["launcher local: workers in the background need bash"]

    def workers(self, runs: int, options: Mapping[str, Any]) -> int:
        """One: it has as many runs at a time as this machine has room for."""
        return 1

    def script(self, submission: Submission) -> str:
        """The script of a worker."""
        return script.write(submission, "$1")

    def sees(self, submission: Submission) -> bool:
        """Only those of this host."""
        return submission.host == socket.gethostname()

    def start(self, submission: Submission) -> str:
        """Start the workers."""
        for number in range(submission.workers):
            with submission.file(".log", number).open("ab") as log:
                try:
                    subprocess.Popen(
                        ["bash", str(submission.file(".sh")), str(number)],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                except OSError as error:
                    raise NotStarted(f"bash: {error.strerror}") from None
        return submission.token

    def find(self, submission: Submission) -> str | None:
        """The name of a submission whose start was cut off: some of its workers live or have left something."""
        began = any(submission.file(".log", number).exists() for number in range(submission.workers))
        return submission.token if began or _living([submission]) else None

    def states(self, submissions: Sequence[Submission]) -> list[Worker]:
        """The states of all workers. Those of another host count as running until they have left an exit code."""
        living, found = _living(submissions), []
        for submission in submissions:
            for number in range(submission.workers):
                name = submission.worker(number)
                if name in living or not (self.sees(submission) or submission.exit_code(number) is not None):
                    log = submission.file(".log", number)
                    found.append(Worker(name, number, None, Phase.RUNNING, host=submission.host, log=log))
                else:
                    found.append(ended(submission, number, None, host=submission.host))
        return found

    def cancel(self, submissions: Sequence[Submission]) -> None:
        """Ask all workers to end.

        Raises:
            UserError: some are on another host.
        """
        away = {each.host for each in submissions if not self.sees(each)}
        for pid in _living(submissions).values():
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGTERM)  # the script and the worker; the worker stops its runs
        if away:
            raise UserError(f"workers on {', '.join(sorted(away))} can be cancelled only there, by the same command")


def _living(submissions: Sequence[Submission]) -> dict[str, int]:
    """Name of a living worker of this machine → its process, which leads a process group."""
    names = {str(each.file(".sh")): each for each in submissions if each.host == socket.gethostname()}
    found = {}
    for process in psutil.process_iter(["cmdline"]) if names else ():
        _, *arguments = process.info["cmdline"] or [""]
        if len(arguments) == 2 and arguments[0] in names and _leads(process.pid):
            found[names[arguments[0]].worker(int(arguments[1]))] = process.pid
    return found


def _leads(pid: int) -> bool:
    """Whether a process leads its process group: the script does, the shell that it forks does not."""
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False
