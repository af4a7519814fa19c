"""Errors of the library, translated at the door into one line and exit code 1."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import click

from .text import one_line


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
