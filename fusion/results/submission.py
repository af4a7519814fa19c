"""The challenge's file: the rows of the organiser's sample in their order, with our numbers.

Of expressions a row has the number of the class, of action units twelve flags.

    image_location,valence,arousal
    1-30-1280x720/00001.jpg,0.123456,-0.200000        image number i + 1 is row i of the trial

Source: docs/sources.md (Submission). Tested by tests/fusion/results/test_submission.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...features_store.interchange.result_files import check_file, made, write_with_side_car
from ...features_store.schema import plain_name
from ...shell.text import counted, preview
from ..data.matching import LENGTH_FLAG
from ..tasks.table import TASKS
from ..tasks.task import Task
from .prediction_files import DECIMALS, writable

_LOCATION_ALONE = "image_location"
# Container and decoder differ by a frame or two on many videos, docs/sources.md (Labels); more is another video.
TOLERATED_ROWS = 2
_LOCATION = re.compile(r"([^,]+)/0*([1-9][0-9]{0,8})(?:\.[^,/.]*)?")


@dataclass(frozen=True)
class Block:
    """Rows of the sample that follow each other and are of one trial: `frames` int64 [N] are image numbers."""

    trial: str
    locations: tuple[str, ...]
    frames: NDArray[np.int64]


@dataclass(frozen=True)
class SubmissionReport:
    """What was written: `padded` and `trimmed` {trial: rows repeated, or left out}, `unused` predictions."""

    rows: int
    trials: int
    padded: Mapping[str, int]
    trimmed: Mapping[str, int]
    unused: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report as text."""
        lines = [f"{counted(self.rows, 'row')} of {counted(self.trials, 'trial')}"]
        if self.padded:
            lines.append(f"last row repeated: {preview(f'{name} (+{rows})' for name, rows in self.padded.items())}")
        if self.trimmed:
            lines.append(
                f"rows left out at the end: {preview(f'{name} (-{rows})' for name, rows in self.trimmed.items())}"
            )
        if self.unused:
            lines.append(f"not in the sample, left out: {preview(self.unused)}")
        return lines


def check_out(out: Path, sample: Path) -> None:
    """Raise ValueError if `out` is the sample, or a file that avfuse has not written."""
    if out.exists() and out.samefile(sample):
        raise ValueError(f"{out} is the organiser's sample; write the submission to another file")
    check_file(out)


def write_submission(
    out: Path,
    sample: Path,
    predictions: Mapping[str, NDArray[Any]],
    allow_length_difference: bool = False,
    about: Mapping[str, Any] | None = None,
    task: Task = TASKS["va"],
) -> SubmissionReport:
    """Write the challenge's file `out` whole, for the rows of the file `sample`; how it was made stands beside it.

    `predictions` {trial: [T, C]} of the `task`; each is asked for once. A trial of the sample is the prediction of its
    name, else the only one whose last path part it is. Its length is its largest image number: up to 2 rows more or
    less are trimmed, or the last row is repeated; more only with `allow_length_difference`.
    Raises ValueError on a task that lacks a column of the file, a sample that cannot be read (with file and line), a
    trial without a prediction or with several, another length, or a value that is not a number; then nothing is
    written.
    """
    if not task.submission_header:
        raise ValueError(
            f"a submission needs {' and '.join(task.labels.names)}, the runs predict {', '.join(task.columns)}"
        )
    check_out(out, sample)
    blocks = read_sample(sample, task)
    lengths: dict[str, int] = {}  # the largest image number of each trial; rows may be missing in between
    for block in blocks:
        lengths[block.trial] = max(lengths.get(block.trial, 0), int(block.frames.max()))
    names = match_trials(lengths, predictions)
    values = {
        trial: task.decide(writable(trial, predictions[name], len(task.columns), task.limits))
        for trial, name in names.items()
    }
    _check_lengths(values, lengths, allow_length_difference)
    cell = f"%.{DECIMALS}f" if task.labels.values == "real" else "%d"
    line = f"%s{f',{cell}' * task.labels.width}\n"
    lines = [f"{task.submission_header}\n"]
    for block in blocks:
        rows = values[block.trial]
        pairs = rows[np.minimum(block.frames, len(rows)) - 1].tolist()
        lines += [line % (location, *pair) for location, pair in zip(block.locations, pairs, strict=True)]
    write_with_side_car(out, "".join(lines).encode("utf-8", "surrogateescape"), about or made())
    surplus = {trial: len(rows) - lengths[trial] for trial, rows in values.items()}
    return SubmissionReport(
        rows=sum(len(block.locations) for block in blocks),
        trials=len(lengths),
        padded={trial: -rows for trial, rows in surplus.items() if rows < 0},
        trimmed={trial: rows for trial, rows in surplus.items() if rows > 0},
        unused=tuple(sorted(set(predictions) - set(names.values()))),
    )


def read_sample(path: Path, task: Task = TASKS["va"]) -> list[Block]:
    """Rows of the organiser's sample in their order. Raises ValueError with `file:line`.

    The header may name the location alone; whatever follows a location is ignored.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
        header = file.readline()
        if re.sub(r"\s", "", header) not in (_LOCATION_ALONE, task.submission_header):
            raise ValueError(
                f"{path}:1: the first line of a sample is {task.submission_header!r}, got {header.strip()[:80]!r}"
            )
        rows: list[tuple[str, list[str], list[int]]] = []
        empty = 0  # the first empty line: others may follow it, rows may not
        for number, line in enumerate(file, start=2):
            if line.isspace():
                empty = empty or number
                continue
            location = line.partition(",")[0].strip()
            match = None if empty else _LOCATION.fullmatch(location)
            if not match:
                found = "" if empty else line.strip()[:80]
                raise ValueError(
                    f"{path}:{empty or number}: a row is '<trial>/<number>.jpg', numbers from 1, got {found!r}"
                )
            if not rows or rows[-1][0] != match[1]:
                rows.append((match[1], [], []))
            rows[-1][1].append(location)
            rows[-1][2].append(int(match[2]))
    blocks = [Block(trial, tuple(locations), np.array(frames, np.int64)) for trial, locations, frames in rows]
    if not blocks:
        raise ValueError(f"{path}:1: no row follows the header")
    return blocks


def match_trials(wanted: Iterable[str], predictions: Iterable[str]) -> dict[str, str]:
    """{trial of the sample: name of its prediction}: the same name, else the only one whose last part it is.

    Raises ValueError if one has none, or several.
    """
    exact = set(predictions)
    alike: dict[str, list[str]] = {}
    by_last: dict[str, list[str]] = {}
    for name in sorted(exact):
        alike.setdefault(plain_name(name), []).append(name)
        by_last.setdefault(plain_name(name).rpartition("/")[2], []).append(name)
    plain = {trial: plain_name(trial) for trial in wanted}
    found = {
        trial: [trial] if trial in exact else alike.get(name) or by_last.get(name, []) for trial, name in plain.items()
    }
    missing = [trial for trial, names in found.items() if not names]
    if missing:
        raise ValueError(
            f"no prediction for {len(missing)} of the sample's {counted(len(found), 'trial')}: {preview(missing)}"
        )
    for trial, names in found.items():
        if len(names) > 1:
            raise ValueError(f"the sample's trial {trial} fits {counted(len(names), 'prediction')}: {preview(names)}")
    return {trial: names[0] for trial, names in found.items()}


def _check_lengths(values: Mapping[str, NDArray[Any]], lengths: Mapping[str, int], allowed: bool) -> None:
    sizes = {
        trial: f"{trial} ({counted(len(rows), 'row')}, {lengths[trial]} in the sample)"
        for trial, rows in values.items()
    }
    empty = [sizes[trial] for trial, rows in values.items() if not len(rows)]
    if empty:
        raise ValueError(f"predictions without a row to repeat: {preview(empty)}")
    far = [sizes[trial] for trial, rows in values.items() if abs(len(rows) - lengths[trial]) > TOLERATED_ROWS]
    if far and not allowed:
        reason = (
            f"more than {TOLERATED_ROWS} rows apart, in {len(far)} of {counted(len(values), 'trial')}: {preview(far)}"
        )
        raise ValueError(f"prediction and sample are {reason}; {LENGTH_FLAG} trims, or repeats the last row")
