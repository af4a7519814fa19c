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

FRAME_HEADER = "valence,arousal"
TIMED_HEADER = "time,valence,arousal"
HEADERS = (FRAME_HEADER, TIMED_HEADER)
CHALLENGE = "VA_Estimation_Challenge"
# Folders of the other tasks, as the editions of Aff-Wild2 call them: EXPR_Recognition_Challenge, AU_Set …
_OTHER_FOLDER = re.compile(r"(EXPR|Expression|AU|MTL)(_[a-z]+)*_(Challenge|Set)", re.IGNORECASE)
_OTHER_TASKS = {"EXPR": "classes of expression", "AU": "action units", "MTL": "several tasks in one file"}
MASKED = -5.0
_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_PLAIN = b"0123456789.+-eE \t\r"
_BOM = b"\xef\xbb\xbf"
_HEADER_BYTES = 256
# 2^24 rows, as many frames as a video may have, of 32 bytes.
_MOST_BYTES = 512 << 20


class OtherTaskError(ValueError):
    """Labels of another task of Aff-Wild2, where valence and arousal are needed."""

    def __init__(self, where: str, task: str) -> None:
        super().__init__(
            f"{where} holds {task} labels ({_OTHER_TASKS[task]}), and valence and arousal are needed: "
            f"a folder {CHALLENGE}, or files with the first line {' or '.join(map(repr, HEADERS))}"
        )


@dataclass(frozen=True)
class LabelText:
    """A label file: `header` is one of HEADERS, `body` its rows; empty lines at the end do not count."""

    path: Path
    header: str
    body: bytes

    def lines(self) -> Iterator[tuple[str, bytes]]:
        """Each row with its place, `file:line`."""
        if self.body:
            for number, line in enumerate(self.body.split(b"\n"), start=2):
                yield f"{self.path}:{number}", line.rstrip(b"\r")


def read_text(path: Path, accepted: tuple[str, ...] = HEADERS) -> LabelText:
    """The whole file. Raises ValueError with `file:1` on a header that is not `accepted`, and on what is not a file."""
    if check_file(path) > _MOST_BYTES:
        raise ValueError(f"{path} has more than {_MOST_BYTES >> 20} MiB: no labels of one trial are that long")
    first, _, body = path.read_bytes().removeprefix(_BOM).rstrip().partition(b"\n")
    return LabelText(path, _accepted_header(path, first, accepted), body)


def read_header(path: Path, accepted: tuple[str, ...] = HEADERS) -> str:
    """The first line alone. Raises ValueError with `file:1` on a header that is not `accepted`."""
    check_file(path)
    with path.open("rb") as file:
        return _accepted_header(path, file.readline(_HEADER_BYTES).removeprefix(_BOM), accepted)


def check_file(path: Path) -> int:
    """Size in bytes. Raises ValueError for a pipe or a device, which would be waited for, or read, for ever."""
    status = path.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):  # a folder fails when it is opened
        raise ValueError(f"{path} is not a file but a pipe, a socket or a device")
    return status.st_size


def plain_numbers(body: bytes, columns: int) -> NDArray[np.float64] | None:
    """Every row at once, float64 [N, columns]; None where some row is not `columns` numbers.

    Numbers of these characters are to `float` what they are to `number_in`: tests compare both on random files.
    """
    rows = body.count(b"\n") + 1 if body else 0
    row = b"," * (columns - 1) + b"\n"
    if body.translate(None, _PLAIN) != (row * rows)[:-1]:
        return None
    try:
        cells = [float(cell) for cell in body.replace(b"\n", b",").split(b",")] if rows else []
    except ValueError:
        return None
    return np.array(cells, np.float64).reshape(rows, columns)


def cells_of(place: str, line: bytes, header: str) -> list[bytes]:
    """The cells of a row, spaces about them taken off. Raises ValueError where there are not as many as names."""
    cells = [cell.strip() for cell in line.split(b",")]
    if len(cells) != len(header.split(",")):
        raise _no_row(place, line, header)
    return cells


def numbers_in(place: str, line: bytes, header: str, cells: list[bytes]) -> list[float]:
    """Cells as numbers. Raises ValueError with the row where one is none (`nan`, `inf`, `0x1`, nothing)."""
    if not all(_NUMBER.fullmatch(cell) for cell in cells):
        raise _no_row(place, line, header)
    return [float(cell) for cell in cells]


def in_range(values: NDArray[np.float64]) -> bool:
    """Whether every label is in [-1, 1] or -5."""
    return bool(((np.abs(values) <= 1.0) | (values == MASKED)).all())


def check_range(place: str, values: list[float]) -> None:
    """Raises ValueError with the first label that is neither in [-1, 1] nor -5."""
    for value in values:
        if value != MASKED and not -1.0 <= value <= 1.0:
            raise ValueError(f"{place}: {value} is neither in [-1, 1] nor -5")


def task_of_header(header: str) -> str | None:
    """The other task, EXPR, AU or MTL, whose first line this is; None where it is none."""
    names = {name.strip().lower() for name in header.split(",")}
    if {"valence", "expression"} <= names:
        return "MTL"
    if {"neutral", "anger"} <= names:
        return "EXPR"
    return "AU" if any(re.fullmatch(r"au_?\d+", name) for name in names) else None


def task_of_folder(name: str) -> str | None:
    """The other task, EXPR, AU or MTL, whose folder is called so; None where it is none."""
    found = _OTHER_FOLDER.fullmatch(name)
    return {"EXPRESSION": "EXPR"}.get(found[1].upper(), found[1].upper()) if found else None


def peek(path: Path) -> str | None:
    """The first line of a file where it is one of HEADERS, else None. Raises OtherTaskError."""
    try:
        return read_header(path)
    except OtherTaskError:
        raise
    except (OSError, ValueError):  # whoever reads the rows says what is wrong
        return None


def shown(line: bytes) -> str:
    """A line of a file as a message shows it: quoted, and not too long."""
    text = line.decode("utf-8", "replace")
    return repr(text if len(text) <= 60 else f"{text[:60]}…")


def _accepted_header(path: Path, line: bytes, accepted: tuple[str, ...]) -> str:
    header = re.sub(rb"[ \t]*,[ \t]*", b",", line.rstrip()).decode("latin-1")
    if header not in accepted:
        if task := task_of_header(header):
            raise OtherTaskError(f"{path}:1", task)
        names, got = " or ".join(map(repr, accepted)), shown(line.rstrip(b"\r\n"))
        raise ValueError(f"{path}:1: the first line is {names}, got {got}")
    return header


def _no_row(place: str, line: bytes, header: str) -> ValueError:
    count = {2: "two", 3: "three"}[len(header.split(","))]
    return ValueError(f"{place}: a row is {count} numbers {header!r}, got {shown(line)}")
