"""How a long walk over trials shows itself: a bar on a terminal, elsewhere a plain line every 30 s."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TextIO, TypeVar

from tqdm import tqdm

from .streams import shows_bars
from .text import counted

Item = TypeVar("Item")
# What is walked over, and a word for what is done with each.
Progress = Callable[[Collection[Item], str], Iterable[Item]]

LINE_EVERY_S = 30.0


def silent(items: Collection[Item], doing: str) -> Iterable[Item]:
    """Nothing is shown."""
    return items


def shown(items: Collection[Item], doing: str, stream: TextIO | None = None) -> Iterator[Item]:
    """Each item in its turn, with a bar or lines on `stream` (stderr)."""
    stream = stream or sys.stderr
    if shows_bars(stream):
        yield from tqdm(items, desc=doing, unit="trial", file=stream, dynamic_ncols=True, leave=False)
        return
    told_s = time.monotonic()
    for number, item in enumerate(items):
        if time.monotonic() - told_s >= LINE_EVERY_S:
            told_s = time.monotonic()
            print(f"{doing}: {number} of {counted(len(items), 'trial')}", file=stream, flush=True)
        yield item
