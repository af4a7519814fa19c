"""How a long walk over trials shows itself: a bar on a terminal, elsewhere a plain line every 30 s.

Tested by tests/shell/test_progress.py.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TextIO, TypeVar

from .text import counted

Item = TypeVar("Item")
# What is walked over, and a word for what is done with each.
Progress = Callable[[Collection[Item], str], Iterable[Item]]

LINE_EVERY_S = 30.0


def say(line: str) -> None:
    """Print a line on stderr, at once."""
    print(line, file=sys.stderr, flush=True)


class LineClock:
    """When the next plain line is due: 30 s after the last one, or after the clock was made (`at_once`: then too)."""

    def __init__(self, at_once: bool = False) -> None:
        self._last_s = -math.inf if at_once else time.monotonic()

    def is_due(self) -> bool:
        """Whether 30 s have passed; where they have, the next 30 s begin."""
        now_s = time.monotonic()
        if now_s - self._last_s < LINE_EVERY_S:
            return False
        self._last_s = now_s
        return True


def shows_bars(stream: TextIO) -> bool:
    """Whether a bar can be drawn: a terminal that has a width (those of `script` or a CI job without a screen: 0)."""
    if not stream.isatty():
        return False
    try:
        return os.get_terminal_size(stream.fileno()).columns > 0
    except OSError:  # not a file of the system's own: its width is not known
        return True


def silent(items: Collection[Item], doing: str) -> Iterable[Item]:
    """Nothing is shown."""
    return items


def shown(items: Collection[Item], doing: str, stream: TextIO | None = None) -> Iterator[Item]:
    """Each item in its turn, with a bar or lines on `stream` (stderr)."""
    stream = stream or sys.stderr
    if shows_bars(stream):
        from tqdm import tqdm  # noqa: PLC0415 - for a bar alone

        yield from tqdm(items, desc=doing, unit="trial", file=stream, dynamic_ncols=True, leave=False)
        return
    clock = LineClock()
    for number, item in enumerate(items):
        if clock.is_due():
            print(f"{doing}: {number} of {counted(len(items), 'trial')}", file=stream, flush=True)
        yield item
