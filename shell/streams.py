"""Standard streams that are closed, or whose reader goes away: a run goes on without them.

    2>&-    the system gives the number 2 to the next file that is opened: a library's warning would be written into it
    2>&1 | head, a terminal that hangs up, a log on a full disk    writing is an error in the middle of a run

Tested by tests/faults/test_environment.py.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def secure_streams() -> None:
    """Open what is closed, to nothing; what cannot be written to stderr is lost without an error.

    Results go to stdout: one that cannot be written to stays an error.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, _open_nothing(number))
    if isinstance(sys.stderr, io.TextIOWrapper):
        raw = io.BufferedWriter(_Unheard(sys.stderr.fileno(), "w", closefd=False))
        encoding, errors = sys.stderr.encoding, sys.stderr.errors
        sys.stderr = io.TextIOWrapper(raw, encoding=encoding, errors=errors, line_buffering=True)


def shows_bars(stream: TextIO) -> bool:
    """Whether a bar can be drawn: a terminal that has a width (those of `script` or a CI job without a screen: 0)."""
    if not stream.isatty():
        return False
    try:
        return os.get_terminal_size(stream.fileno()).columns > 0
    except OSError:  # no file of the system's own: its width is not known
        return True


class _Unheard(io.FileIO):
    """A file that takes what nobody can read."""

    def write(self, content: ReadableBuffer, /) -> int:
        try:
            return super().write(content)
        except OSError:
            return memoryview(content).nbytes


def _open_nothing(number: int) -> io.TextIOWrapper:
    handle = os.open(os.devnull, os.O_RDWR)  # gets this very number, the lowest one that is free
    os.set_inheritable(handle, True)  # else ffmpeg and the workers would have the same trouble
    # The number stays taken when the stream that this returns is replaced by another over it.
    return open(handle, "r" if number == 0 else "w", encoding="utf-8", closefd=False)
