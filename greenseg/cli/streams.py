"""Standard output and standard error, made so that no run depends on them.

If the reader has gone (`| head`), the terminal was closed or the disk is full, output is dropped and work continues. A
terminal without UTF-8 shows the nearest characters that it has for those it lacks, such as ●.
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
"""Errors of a pipe without a reader and of a closed terminal: nobody misses the dropped output."""

_NEAR = {
    "●": "*", "·": ".", "–": "-", "—": "-", "−": "-", "×": "x", "±": "+-", "→": "->", "…": "...", "≤": "<=", "≥": ">=",
    "─": "-", "│": "|", "└": "+", "━": "=", "╸": "=", "╺": "=", "’": "'", "µ": "u", "μ": "u", "°": " deg",
}  # fmt: skip
"""Nearest ASCII text of a character, of the same width unless that would change the number or relation."""

_HANDLER = "greenseg.near"


class _Output(io.FileIO):
    """A file descriptor to write to. After the first error, it drops all output.

    Attributes:
        error: the first error.
    """

    error: OSError | None = None

    def write(self, content: Any) -> int:
        if self.error is None:
            try:
                while (written := super().write(content)) is None:  # non-blocking and full
                    select.select([], [self], [])
                return written
            except OSError as error:
                self.error = error
        return len(content)


def install() -> None:
    """Replace the standard streams of this process, and read file names as UTF-8 in every locale.

    `COLUMNS` and `LINES` are ignored unless they are numbers.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        _start_in_utf8()
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed (`>&-`): the next opened file would get this descriptor, and receive the output
            os.open(os.devnull, os.O_RDWR)
    codecs.register_error(_HANDLER, _near)
    sys.stdout, sys.stderr = _stream(1, sys.stdout), _stream(2, sys.stderr)
    for name in ("COLUMNS", "LINES"):
        if not re.fullmatch("[1-9][0-9]{0,3}", os.environ.get(name, "")):
            os.environ.pop(name, None)


def _start_in_utf8() -> NoReturn:
    """Execute this program again, because Python's UTF-8 mode can only be set at the start."""
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
    """The nearest text for a character that an encoding lacks. Undecodable bytes of file names stay unchanged."""
    assert isinstance(error, UnicodeEncodeError)
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":
        return bytes([ord(character) - 0xDC00]), error.start + 1
    raised = "^" if unicodedata.decomposition(character).startswith("<super>") else ""  # 10⁹ is not 109
    near = raised + unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return _NEAR.get(character) or near or "?", error.start + 1


def write_data(text: str) -> None:
    """Write data to standard output, always as UTF-8, because its reader is a program."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    sys.stdout.buffer.flush()


def lost() -> str:
    """Why part of standard output could not be written; empty if all was written or the reader had gone."""
    sys.stdout.flush()
    error = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    error = getattr(error, "error", None)
    return "" if error is None or error.errno in _GONE else str(error.strerror)
