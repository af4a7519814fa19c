"""The text of a label file: its header line, and its rows of numbers, read at once where all of them are plain.

Tested by tests/features_store/labels/test_annotations.py and test_timed.py.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .kinds import VA, LabelKind, OtherTaskError, kind_of_header

_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_PLAIN = b"0123456789.+-eE \t\r"
_BOM = b"\xef\xbb\xbf"
_HEADER_BYTES = 256
_COUNTS = {1: "one number", 2: "two numbers", 3: "three numbers"}
# 2^24 rows, as many frames as a video may have, of 32 bytes.
_MOST_BYTES = 512 << 20


@dataclass(frozen=True)
class LabelText:
    """A label file: `header` is its first line, `body` its rows; empty lines at the end do not count."""

    path: Path
    header: str
    body: bytes

    def lines(self) -> Iterator[tuple[str, bytes]]:
        """Each row with its place, `file:line`."""
        if self.body:
            for number, line in enumerate(self.body.split(b"\n"), start=2):
                yield f"{self.path}:{number}", line.rstrip(b"\r")


def read_text(path: Path, kind: LabelKind = VA, accepted: tuple[str, ...] = ()) -> LabelText:
    """The whole file, whose header is one of the kind's or, if there are any, of the `accepted` ones.

    Raises ValueError with `file:1` on another header, and on what is not a file.
    """
    if size_of_file(path) > _MOST_BYTES:
        raise ValueError(f"{path} has more than {_MOST_BYTES >> 20} MiB: no labels of one trial are that long")
    first, _, body = path.read_bytes().removeprefix(_BOM).rstrip().partition(b"\n")
    return LabelText(path, _accepted_header(path, first, kind, accepted), body)


def read_header(path: Path, kind: LabelKind = VA, accepted: tuple[str, ...] = ()) -> str:
    """The first line alone. Raises ValueError as `read_text` does."""
    size_of_file(path)
    with path.open("rb") as file:
        return _accepted_header(path, file.readline(_HEADER_BYTES).removeprefix(_BOM), kind, accepted)


def size_of_file(path: Path) -> int:
    """Size of a text file in bytes.

    Raises ValueError for a pipe or a device, which would be waited for, or read, for ever; OSError without a file.
    """
    status = path.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):  # a folder fails when it is opened
        raise ValueError(f"{path} is not a file but a pipe, a socket or a device")
    return status.st_size


def plain_numbers(body: bytes, columns: int, kind: LabelKind = VA) -> NDArray[np.float64] | None:
    """Every row at once, float64 [N, columns]; None where some row is not `columns` numbers, or a label is wrong.

    Labels are the last columns, as many as a row of the kind has.

    Numbers of these characters mean to `float` what they mean to `row_numbers`: tests compare both on random files.
    """
    rows = body.count(b"\n") + 1 if body else 0
    row = b"," * (columns - 1) + b"\n"
    if body.translate(None, _PLAIN) != (row * rows)[:-1]:
        return None
    try:
        cells = [float(cell) for cell in body.replace(b"\n", b",").split(b",")] if rows else []
    except ValueError:
        return None
    numbers = np.array(cells, np.float64).reshape(rows, columns)
    return numbers if kind.allowed(numbers[:, -kind.width :]).all() else None


def row_numbers(place: str, line: bytes, header: str, kind: LabelKind = VA) -> list[float]:
    """The numbers of one row as the file's rules have it; in a timed file an empty label counts as masked.

    Raises ValueError with the row where there are not as many numbers as a row has, where one is not a plain number
    (`nan`, `inf`, `0x1`, nothing), or where a label is not one of the kind's.
    """
    cells = [cell.strip() for cell in line.split(b",")]
    timed = header == kind.timed_header
    if timed:
        cells[1:] = [cell or b"%g" % kind.masked for cell in cells[1:]]
    if len(cells) != kind.width + timed or not all(_NUMBER.fullmatch(cell) for cell in cells):
        count = _COUNTS.get(kind.width + timed, f"{kind.width + timed} numbers")
        what = f"{count}, {kind.range}" if kind.values == "class" else f"{count} {header!r}"
        raise ValueError(f"{place}: a row is {what}, got {shown(line)}")
    numbers = [float(cell) for cell in cells]
    labels = np.array(numbers[-kind.width :])
    if wrong := labels[~kind.allowed(labels)].tolist():
        raise ValueError(f"{place}: {wrong[0]} is neither {kind.range} nor {kind.masked:g}")
    return numbers


def peek(path: Path, kind: LabelKind = VA) -> str | None:
    """The first line of a file where it is one of the kind's, else None. Raises OtherTaskError."""
    try:
        return read_header(path, kind)
    except OtherTaskError:
        raise
    except (OSError, ValueError):  # whoever reads the rows says what is wrong
        return None


def shown(line: bytes) -> str:
    """A line of a file as a message shows it: quoted, and not too long."""
    text = line.decode("utf-8", "replace")
    return repr(text if len(text) <= 60 else f"{text[:60]}…")


def _accepted_header(path: Path, line: bytes, kind: LabelKind, accepted: tuple[str, ...]) -> str:
    accepted = accepted or kind.headers
    header = re.sub(rb"[ \t]*,[ \t]*", b",", line.rstrip()).decode("latin-1")
    if header in accepted:
        return header
    if (found := kind_of_header(header)) not in (None, kind.name):
        raise OtherTaskError(f"{path}:1", str(found), kind)
    wanted, got = " or ".join(map(repr, accepted)), shown(line.rstrip(b"\r\n"))
    raise ValueError(f"{path}:1: the first line is {wanted}, got {got}")
