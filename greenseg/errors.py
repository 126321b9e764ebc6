"""User errors, reported without a traceback, and the exit codes for scripts."""

import difflib
from collections.abc import Iterable, Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every greenseg command."""

    OK = 0
    FAILED = 1  # a run failed
    USAGE = 2  # the input is wrong: settings, YAML, data; nothing was started or written
    INCOMPLETE = 3  # no run failed, some are not done: trained by another process, max_energy is spent, disk is full
    REQUEUE = 75  # the worker of a job ended early, with runs left: the next start of the job continues
    INTERRUPTED = 130  # Ctrl-C or SIGTERM; the same command continues where this one stopped


class UserError(Exception):
    """One or more mistakes in the user's input, all found before anything starts.

    Args:
        problems: one message per mistake. Each names the file and line or the path, the problem, and the remedy.
            Duplicates are dropped.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems: list[str] = [problems] if isinstance(problems, str) else list(dict.fromkeys(problems))
        super().__init__("\n".join(self.problems))


def did_you_mean(name: str, valid: Sequence[str]) -> str:
    """` (did you mean 'x'?)` for the nearest valid name, or an empty string if none is near."""
    near = difflib.get_close_matches(name.lower(), valid, n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""
