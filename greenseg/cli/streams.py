"""Standard output and standard error, on which no run depends.

Where a reader has gone (`| head`), a terminal was closed or a disk is full, what cannot be written is dropped, and work
goes on. Where a terminal is not UTF-8, what it cannot show, such as ●, is shown as what comes near.
"""

import codecs
import errno
import io
import os
import re
import select
import sys
import unicodedata
from typing import Any, NoReturn

_GONE = (errno.EPIPE, errno.EIO, errno.ECONNRESET)
"""Errors of a pipe that nobody reads any more, and of a terminal that hung up: nobody misses what is dropped."""

_NEAR = {
    "●": "*", "·": ".", "–": "-", "—": "-", "−": "-", "×": "x", "±": "+-", "→": "->", "…": "...", "≤": "<=", "≥": ">=",
    "─": "-", "│": "|", "└": "+", "━": "=", "╸": "=", "╺": "=", "’": "'", "µ": "u", "μ": "u", "°": " deg",
}  # fmt: skip
"""What comes near a character; as wide as it is, where that would not make another number or relation of it."""

_HANDLER = "greenseg.near"


class _Output(io.FileIO):
    """A file descriptor to write to, which drops everything from the first error on.

    Attributes:
        error: that error.
    """

    error: OSError | None = None

    def write(self, content: Any) -> int:
        if self.error is None:
            try:
                while (written := super().write(content)) is None:  # somebody made it non-blocking, and it is full
                    select.select([], [self], [])
                return written
            except OSError as error:
                self.error = error
        return len(content)


def install() -> None:
    """Have this process write to such streams from now on, and read names of files as UTF-8, whatever the locale.

    `COLUMNS` and `LINES` count only where they are numbers.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        _start_in_utf8()
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed (`>&-`): the next file that is opened would get its number, and be written to
            os.open(os.devnull, os.O_RDWR)
    codecs.register_error(_HANDLER, _near)
    sys.stdout, sys.stderr = _stream(1, sys.stdout), _stream(2, sys.stderr)
    for name in ("COLUMNS", "LINES"):
        if not re.fullmatch("[1-9][0-9]{0,3}", os.environ.get(name, "")):
            os.environ.pop(name, None)


def _start_in_utf8() -> NoReturn:
    """Execute this program again, as what Python calls UTF-8 mode can only be had from the start."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    environment = {"PYTHONIOENCODING": encoding} | os.environ | {"PYTHONUTF8": "1"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _stream(descriptor: int, before: Any) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(descriptor, "w", closefd=False)),
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors=_HANDLER,
        line_buffering=descriptor == 2 or os.isatty(descriptor),
        write_through=getattr(before, "write_through", False),
    )


def _near(error: UnicodeError) -> tuple[str | bytes, int]:
    """What comes near a text that an encoding lacks; a byte of a file name that is no text stays that byte."""
    assert isinstance(error, UnicodeEncodeError)
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":
        return bytes([ord(character) - 0xDC00]), error.start + 1
    raised = "^" if unicodedata.decomposition(character).startswith("<super>") else ""  # 10⁹ is not 109
    near = raised + unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return _NEAR.get(character) or near or "?", error.start + 1


def write_data(text: str) -> None:
    """Write data to standard output, as UTF-8 whatever a terminal takes: its reader is a program."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    sys.stdout.buffer.flush()


def lost() -> str:
    """Why a part of standard output could not be written; empty where all was, or where nobody was left to read it."""
    sys.stdout.flush()
    error = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    error = getattr(error, "error", None)
    return "" if error is None or error.errno in _GONE else str(error.strerror)
