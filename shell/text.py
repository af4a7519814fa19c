"""Words for users: counts with the right plural, tables in columns, what a mistyped name may mean; and the user's own.

Tested by tests/shell/test_text.py.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from contextvars import ContextVar

TYPED: ContextVar[tuple[str, ...]] = ContextVar("typed", default=())  # the words of this call, set by `avfuse`


def command_line() -> str:
    """The command line of this call, as it could be typed again."""
    import shlex  # noqa: PLC0415 - help does without it

    return shlex.join(["avfuse", *TYPED.get()])


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

    `cells` [R][C], the header first. Widths are those on a terminal: a CJK letter or an emoji takes two columns.
    """
    widths = [max(map(columns_of, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        gaps = [" " * (width - columns_of(cell)) for cell, width in zip(row, widths, strict=True)]
        padded = [
            cell + gap if at < words else gap + cell for at, (cell, gap) in enumerate(zip(row, gaps, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return lines


def columns_of(text: str) -> int:
    """How many columns of a terminal a text takes: two a wide letter, none an accent (Unicode annex 11)."""
    if text.isascii():
        return len(text)
    import unicodedata  # noqa: PLC0415 - only for letters beyond ASCII

    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.category(letter) in ("Mn", "Me", "Cf") for letter in text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean extract?)` where a known name is near, else nothing."""
    import difflib  # noqa: PLC0415 - only where a name is mistyped

    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


# The last two ranges turn the direction of what follows.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


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
    import difflib  # noqa: PLC0415 - only where a name is mistyped

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


def kind_and_number(device: str) -> tuple[str, int]:
    """`cpu` and 0, or `cuda` and the GPU's number, of `cpu`, `cuda` or `cuda:N`. Raises ValueError for another name."""
    kind, colon, number = device.partition(":")
    if device != "cpu" and (kind != "cuda" or number.isdecimal() != bool(colon)):
        raise ValueError(f"--device is auto, cpu, cuda or cuda:N, got {device!r}")
    return kind, int(number or 0)


def key_and_value(pair: str, form: str = "KEY=VALUE") -> tuple[str, str]:
    """Both sides of the first equals sign; the value may be empty.

    Raises ValueError where there is no sign or no key.
    """
    key, sign, value = pair.partition("=")
    if not sign or not key.strip():
        raise ValueError(f"{pair!r} is not {form}")
    return key.strip(), value
