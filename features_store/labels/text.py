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

    def __init__(self, place: str, task: str) -> None:
        super().__init__(
            f"{place} holds {task} labels ({_OTHER_TASKS[task]}), and valence and arousal are needed: "
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
    if _checked_size(path) > _MOST_BYTES:
        raise ValueError(f"{path} has more than {_MOST_BYTES >> 20} MiB: no labels of one trial are that long")
    first, _, body = path.read_bytes().removeprefix(_BOM).rstrip().partition(b"\n")
    return LabelText(path, _accepted_header(path, first, accepted), body)


def read_header(path: Path, accepted: tuple[str, ...] = HEADERS) -> str:
    """The first line alone. Raises ValueError with `file:1` on a header that is not `accepted`."""
    _checked_size(path)
    with path.open("rb") as file:
        return _accepted_header(path, file.readline(_HEADER_BYTES).removeprefix(_BOM), accepted)


def _checked_size(path: Path) -> int:
    """Size in bytes. Raises ValueError for a pipe or a device, which would be waited for, or read, for ever."""
    status = path.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):  # a folder fails when it is opened
        raise ValueError(f"{path} is not a file but a pipe, a socket or a device")
    return status.st_size


def plain_numbers(body: bytes, columns: int) -> NDArray[np.float64] | None:
    """Every row at once, float64 [N, columns]; None where some row is not `columns` numbers, or a label is wrong.

    A label, one of the last two columns, is in [-1, 1] or -5.

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
    labels = numbers[:, -2:]
    return numbers if ((np.abs(labels) <= 1.0) | (labels == MASKED)).all() else None


def row_numbers(place: str, line: bytes, header: str) -> list[float]:
    """The numbers of one row as the file's rules have it; in a timed file an empty label counts as masked, -5.

    Raises ValueError with the row where there are not as many numbers as names, where one is not a plain number
    (`nan`, `inf`, `0x1`, nothing), or where a label is neither in [-1, 1] nor -5.
    """
    names = header.split(",")
    cells = [cell.strip() for cell in line.split(b",")]
    if header == TIMED_HEADER:
        cells[1:] = [cell or b"-5" for cell in cells[1:]]
    if len(cells) != len(names) or not all(_NUMBER.fullmatch(cell) for cell in cells):
        count = {2: "two", 3: "three"}[len(names)]
        raise ValueError(f"{place}: a row is {count} numbers {header!r}, got {shown(line)}")
    numbers = [float(cell) for cell in cells]
    for label in numbers[-2:]:
        if label != MASKED and not -1.0 <= label <= 1.0:
            raise ValueError(f"{place}: {label} is neither in [-1, 1] nor -5")
    return numbers


def task_of_folder(name: str) -> str | None:
    """The other task, EXPR, AU or MTL, whose folder has this name; None where none has."""
    match = _OTHER_FOLDER.fullmatch(name)
    return {"EXPRESSION": "EXPR"}.get(match[1].upper(), match[1].upper()) if match else None


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
    if header in accepted:
        return header
    names = {name.strip().lower() for name in header.split(",")}
    if {"valence", "expression"} <= names:
        raise OtherTaskError(f"{path}:1", "MTL")
    if {"neutral", "anger"} <= names:
        raise OtherTaskError(f"{path}:1", "EXPR")
    if any(re.fullmatch(r"au_?\d+", name) for name in names):
        raise OtherTaskError(f"{path}:1", "AU")
    wanted, got = " or ".join(map(repr, accepted)), shown(line.rstrip(b"\r\n"))
    raise ValueError(f"{path}:1: the first line is {wanted}, got {got}")
