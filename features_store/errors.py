"""Errors of the library, translated at the door into one line and exit code 1."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import click


@contextmanager
def clean_errors(*named: type[Exception]) -> Iterator[None]:
    """Turn OSError, ValueError and the `named` errors into a `click.ClickException`; also a decorator.

    Raises click.ClickException: one line on stderr, exit code 1, no traceback.
    """
    kinds: tuple[type[Exception], ...] = (OSError, ValueError, *named)
    try:
        yield
    except kinds as error:
        # click itself ends quietly when the reader of a pipe has gone.
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            raise
        raise click.ClickException(one_line(error)) from error


def one_line(error: BaseException) -> str:
    """The reason of an error on one line; the file first where the system names one."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return flat(str(error)) or type(error).__name__


def flat(text: str) -> str:
    """A text on one line, whatever names or messages are in it."""
    return " ".join(text.split())
