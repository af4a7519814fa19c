"""Files of words with their times, `avfuse transcribe`'s or anybody's: one CSV a video.

    word,start_s,end_s,confidence          the first line names the columns, in any order; others are left alone
    "negotiations,",3.12,3.64,0.98         s on the container's clock: 0 is the earlier start of its two streams

Tested by tests/pipeline/words/test_transcript.py.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...features_store.disk.atomic import replace_file
from ...features_store.labels.text import size_of_file
from ...features_store.schema import plain_name
from ...shell.text import counted, flat, preview

SUFFIX = ".csv"
# The columns, and what else they are called.
_COLUMNS = {"word": ("word", "text"), "start_s": ("start_s", "start"), "end_s": ("end_s", "end")}
_HEADER = ("word", "start_s", "end_s", "confidence")
_SECONDS = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_OTHER_UNIT = re.compile(r"(start|end)[_ ]?(ms|msec|millis|milliseconds|frame|frames|sample|samples)")
_MOST_BYTES = 64 << 20  # a word every 20 ms, for a day


@dataclass(frozen=True)
class Word:
    """A word as it was written, punctuation and all, said from `start_s` to `end_s` ≥ `start_s`.

    `confidence` in [0, 1], NaN where it is not known.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float = math.nan


@dataclass(frozen=True)
class Transcript:
    """The words of a video in order of their starts; `remarks`: what of the file was left out."""

    words: tuple[Word, ...]
    remarks: tuple[str, ...] = ()


def read_transcript(path: Path) -> Transcript:
    """The words of a file, sorted by their starts; of equal ones the first in the file comes first.

    Rows without a word (silence, as aligners write it) are left out, and so, with a remark, are words without times.
    A file without rows has no words. Raises ValueError naming file and line, OSError.
    """
    if size_of_file(path) > _MOST_BYTES:
        raise ValueError(f"{path} has more than {_MOST_BYTES >> 20} MiB, more than the words of one video can take")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8, at byte {error.start}: save it as UTF-8") from error
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    words: list[Word] = []
    timeless = 0
    columns: dict[str, int] = {}
    names = 0
    try:
        for cells in rows:
            place = f"{path}:{rows.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if not columns:
                columns, names = _columns(place, cells), len(cells)
                continue
            if len(cells) != names:
                raise ValueError(f"{place}: {counted(len(cells), 'cell')}, but the first line has {names}")
            word, start, end = (cells[columns[name]].strip() for name in _COLUMNS)
            if not word:
                continue
            if not start and not end:
                timeless += 1
                continue
            for cell in (start, end):
                if not _SECONDS.fullmatch(cell):
                    raise ValueError(f"{place}: {_shown(cell)} is not a time in s")
            start_s, end_s = float(start), float(end)
            if not math.isfinite(start_s) or not math.isfinite(end_s) or end_s < start_s:
                raise ValueError(f"{place}: {_shown(word)} ends at {end} s, but starts at {start} s")
            words.append(Word(word, start_s, end_s))
    except csv.Error as error:
        raise ValueError(f"{path}:{max(rows.line_num, 1)}: not CSV ({error})") from error
    remarks = [f"{counted(timeless, 'word')} without times: left out"] if timeless else []
    return Transcript(tuple(sorted(words, key=lambda word: word.start_s)), tuple(remarks))


def _columns(place: str, cells: list[str]) -> dict[str, int]:
    """Where the columns are. Raises ValueError where the first line does not name them, or names other units."""
    names = [cell.strip().lower() for cell in cells]
    if wrong := [name for name in names if _OTHER_UNIT.fullmatch(name)]:
        raise ValueError(f"{place}: times are in s here, in columns start_s and end_s; the file has {preview(wrong)}")
    found: dict[str, int] = {}
    for column, spellings in _COLUMNS.items():
        at = [number for number, name in enumerate(names) if name in spellings]
        if len(at) > 1:
            raise ValueError(f"{place}: more than one column is called {' or '.join(spellings)}")
        if at:
            found[column] = at[0]
    if len(found) < len(_COLUMNS):
        raise ValueError(f"{place}: the first line names the columns word,start_s,end_s; got {_shown(','.join(cells))}")
    return found


def _shown(text: str) -> str:
    text = flat(text)
    return repr(text if len(text) <= 60 else f"{text[:60]}…")


def write_transcript(path: Path, words: Iterable[Word]) -> None:
    """Write a file of words, whole or not at all; times in ms. Raises OSError."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_HEADER)
    for word in words:
        rows.writerow((word.text, f"{word.start_s:.3f}", f"{word.end_s:.3f}", f"{word.confidence:.3f}"))
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, text.getvalue().encode())


class TranscriptFolder:
    """A folder of such files by trial: `TRIAL.csv`, in the trial's folder or flat; letters compared as trials' are.

    `video59_left` takes its own file, else that of its video, `video59`. Raises ValueError where it is not a folder.
    """

    def __init__(self, folder: Path) -> None:
        """Index the folder. Raises ValueError where it is not one."""
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder")
        self.folder = folder
        self.files: dict[str, Path] = {}
        for parent, folders, names in os.walk(folder, followlinks=False):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                if name.lower().endswith(SUFFIX) and not name.startswith("."):
                    path = Path(parent, name)
                    stem = path.relative_to(folder).as_posix()[: -len(SUFFIX)]
                    self.files.setdefault(plain_name(stem), path)

    def find(self, trial: str, video: str) -> Path | None:
        """The file of a trial of a video, both by name; None where there is none."""
        for name in (trial, trial.rpartition("/")[2], video, video.rpartition("/")[2]):
            if (path := self.files.get(plain_name(name))) is not None:
                return path
        return None
