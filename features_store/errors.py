"""Errors of the library, translated at the door into one line and exit code 1."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

import click

from .text import preview

# The last two ranges turn the direction of what follows.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


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
        return escaped(f"{error.filename}: {error.strerror}")
    return flat(str(error)) or type(error).__name__


def flat(text: str) -> str:
    """A text on one line, whatever names or messages are in it."""
    return escaped(" ".join(text.split()))


def escaped(text: str) -> str:
    """A text whose line breaks and other control characters are spelled: `a\\nb`; they neither break lines nor act."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def check_known(what: str, chosen: Iterable[str], known: Collection[str]) -> None:
    """Raises ValueError where a chosen name is not known, with the nearest of those that are.

    A file's name (`clip.mp4`) and a name without its folders are near too.
    """
    unknown = [name for name in dict.fromkeys(chosen) if name not in known]
    if not unknown:
        return
    last = {name.rpartition("/")[2]: name for name in known}
    near = []
    for name in unknown[:5]:
        file = name.rpartition("/")[2]
        bare = file.rpartition(".")[0] or file
        close = difflib.get_close_matches(name, known, 1) or difflib.get_close_matches(bare, last, 1)
        near += [last.get(found, found) for found in close]
    hint = f"did you mean {preview(near)}?" if near else f"there are {preview(sorted(set(known))) or 'none'}"
    raise ValueError(f"no {what} is called {preview(unknown)}: {hint}")


def in_words(size_bytes: float) -> str:
    """A size as people say it, in powers of 1000."""
    units = iter(("B", "KB", "MB", "GB", "TB"))
    unit = next(units)
    while size_bytes >= 1000 and unit != "TB":
        size_bytes, unit = size_bytes / 1000, next(units)
    return f"{size_bytes:.0f} {unit}" if unit == "B" or size_bytes >= 100 else f"{size_bytes:.1f} {unit}"
