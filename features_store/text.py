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


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines whose cells stand below each other."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [line.rstrip() for line in lines]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean extract?)` where a known name is near, else nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
