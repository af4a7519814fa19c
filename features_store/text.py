"""Words for users: counts with the right plural, tables in columns, what a mistyped name may mean.

Tested by tests/features_store/test_text.py.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`1 video`, `2 videos`; `plural` where it is not the noun with an s."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def untrained_line(features: Iterable[str]) -> str | None:
    """What a command says, once, of features that come from random networks; None where there are none."""
    names = ", ".join(dict.fromkeys(features))
    return f"UNTRAINED WEIGHTS: {names}: for tests and demos only" if names else None


def preview(names: Iterable[str], most: int = 5) -> str:
    """The first few names, and how many more there are: `a, b, c, d, e and 3 more`."""
    found = list(names)
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")


def text_table(cells: Sequence[Sequence[str]], words: int = 1) -> list[str]:
    """Lines of a table: the first columns, of `words`, to the left, the others, of numbers, to the right.

    `cells` [R][C], the header first.
    """
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        (
            cell.ljust(width) if at < words else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    )
    return ["  ".join(line).rstrip() for line in lines]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean extract?)` where a known name is near, else nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
