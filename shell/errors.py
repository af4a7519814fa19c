"""What may go wrong between a command and its user: the library's errors in one line, and streams that nobody reads.

    2>&-    the system gives the number 2 to the next file that is opened: a library's warning would be written into it
    2>&1 | head, a terminal that hangs up, a log on a full disk    writing is an error in the middle of a run

Tested by tests/faults/test_environment.py.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from .text import one_line

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


@contextmanager
def clean_errors(*named: type[Exception]) -> Iterator[None]:
    """Turn OSError, ValueError and the `named` errors into a `click.ClickException`; also a decorator.

    Raises click.ClickException: one line on stderr, exit code 1, no traceback.
    """
    kinds: tuple[type[Exception], ...] = (OSError, ValueError, *named)
    try:
        yield
    except kinds as error:
        # click itself ends quietly when the reader of a pipe has ended.
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            raise
        raise click.ClickException(one_line(error)) from error


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn ValueError, from settings that options gave, into wrong usage.

    Raises click.UsageError: one line on stderr below the usage, exit code 2.
    """
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def secure_streams() -> None:
    """Open what is closed, to nothing; what cannot be written to stderr is lost without an error.

    Results go to stdout: one that cannot be written to stays an error.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDWR)  # gets this very number, the lowest one that is free
            os.set_inheritable(handle, True)  # else it would be closed again in ffmpeg and the workers
            # The number stays taken when the stream is replaced by another over it.
            opened = open(handle, "r" if number == 0 else "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, opened)
    if isinstance(sys.stderr, io.TextIOWrapper):
        raw = io.BufferedWriter(_LenientFile(sys.stderr.fileno(), "w", closefd=False))
        encoding, errors = sys.stderr.encoding, sys.stderr.errors
        sys.stderr = io.TextIOWrapper(raw, encoding=encoding, errors=errors, line_buffering=True)


class _LenientFile(io.FileIO):
    """A file that takes what nobody can read."""

    def write(self, content: ReadableBuffer, /) -> int:
        try:
            return super().write(content)
        except OSError:
            return memoryview(content).nbytes
