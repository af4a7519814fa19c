"""Labels at a rate of their own (`time,valence,arousal`), interpolated onto the times of the frames.

    samples   ●────●────○────●────●                  ●────●      ○ masked
    frames    | | | | | | | | | | | | | | | | | | | | | | | | |
    valid     + + + + . . . . + + + + . . . . . . . . + + + + .
                      └ masked ┘       └──── gap ────┘        └ after the last sample

Tested by tests/features_store/labels/test_timed.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .annotations import LabelTrack
from .text import (
    MASKED,
    TIMED_HEADER,
    LabelText,
    cells_of,
    check_range,
    in_range,
    numbers_in,
    plain_numbers,
    read_header,
    read_text,
)

GAP_STEPS = 2.5
SHORTEST_GAP_S = 0.25
# Times are written with six decimals and more: a frame this near to a sample lies on it.
_SAME_S = 1e-6
_LATEST_S = 1e9
# Annotators stop a little after the video: so far beyond either end of it labels are taken as they are.
BEYOND_S = 5.0
BEYOND_SHARE = 0.01


@dataclass(frozen=True)
class TimedLabels:
    """Samples of one trial: `time_s` float64 [S] rising, `values` float64 [S, 2], `valid` bool [S] (not masked)."""

    trial: str
    time_s: NDArray[np.float64]
    values: NDArray[np.float64]
    valid: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if not self.time_s.size or not (self.time_s[1:] > self.time_s[:-1]).all():
            raise ValueError(f"{self.trial}: times must rise, and there must be one")
        if self.values.shape != (self.time_s.size, 2) or self.valid.shape != self.time_s.shape:
            raise ValueError(f"{self.trial}: {self.time_s.size} times, {self.values.shape} values")

    @property
    def gap_s(self) -> float:
        """Neighbouring samples further apart than this have a gap between them, in s."""
        steps = np.diff(self.time_s)
        return max(GAP_STEPS * float(np.median(steps)), SHORTEST_GAP_S) if steps.size else 0.0


def is_timed(path: Path) -> bool:
    """Whether the rows bear times. Raises ValueError with `file:1` where the header is none of the two."""
    return read_header(path) == TIMED_HEADER


def read_timed(path: Path) -> TimedLabels:
    """Samples of one file; −5 or an empty cell masks a sample.

    Raises ValueError with `file:line` on a wrong header, a short row, a wrong number, a time that does not rise.
    """
    text = read_text(path, (TIMED_HEADER,))
    rows = plain_numbers(text.body, 3)
    if rows is None or not _right(rows):
        rows = np.array(list(_rows(text)), np.float64).reshape(-1, 3)
    if not len(rows):
        raise ValueError(f"{path}:1: no row follows the header")
    values = rows[:, 1:]
    return TimedLabels(path.stem, rows[:, 0], values, (values != MASKED).all(axis=1))


def at_frames(labels: TimedLabels, time_s: NDArray[np.float64]) -> LabelTrack:
    """Labels at the frames' times, float64 [T] in s: T rows, linear between two neighbouring samples.

    A frame on a valid sample is valid. Between two samples it is where both are valid and no more than `gap_s`
    apart; before the first and after the last it is not. Invalid rows are −5. Raises ValueError on times that
    are no numbers.
    """
    if not np.isfinite(time_s).all():
        raise ValueError(f"{labels.trial}: a frame's time is not a finite number")
    left = np.clip(np.searchsorted(labels.time_s, time_s, side="right") - 1, 0, None)
    right = np.minimum(left + 1, labels.time_s.size - 1)
    span_s, weight = _place(labels, time_s, left, right)
    nearest = np.where(weight <= 0.5, left, right)
    on = np.abs(time_s - labels.time_s[nearest]) <= _SAME_S
    inside = (time_s >= labels.time_s[0]) & (time_s <= labels.time_s[-1]) & (span_s <= labels.gap_s + _SAME_S)
    valid = np.where(on, labels.valid[nearest], inside & labels.valid[left] & labels.valid[right])
    values = np.where(on[:, None], labels.values[nearest], _mixed(labels.values, left, right, weight))
    values[~valid] = MASKED
    return LabelTrack(labels.trial, values.astype(np.float32), valid)


def check_reach(labels: TimedLabels, time_s: NDArray[np.float64], ends_early: bool = False) -> None:
    """Raise ValueError where labels lie far beyond the frames' times, float64 [T] in s: they are of another clock.

    Far is more than 5 s and more than 1 % of the video. Masked samples do not count. `ends_early`: the frames do not
    reach the video's end, so labels may.
    """
    if not labels.valid.any() or not len(time_s):
        return
    real_s = labels.time_s[labels.valid]
    begin_s, end_s = float(time_s.min()), float(time_s.max())
    beyond_s = max(BEYOND_S, BEYOND_SHARE * (end_s - begin_s))
    if real_s[-1] > end_s + beyond_s and not ends_early:
        told = f"labels reach {real_s[-1]:.6g} s, the video ends at {end_s:.6g} s"
    elif real_s[0] < begin_s - beyond_s:
        told = f"labels begin at {real_s[0]:.6g} s, the video begins at {begin_s:.6g} s"
    else:
        return
    raise ValueError(f"{labels.trial}: {told}: is `time` in seconds, from the beginning of the video?")


def _place(
    labels: TimedLabels, time_s: NDArray[np.float64], left: NDArray[np.intp], right: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance of both neighbours in s, and the frame's place between them, 0 to 1."""
    span_s = labels.time_s[right] - labels.time_s[left]
    past_s = np.clip(time_s, labels.time_s[0], labels.time_s[-1]) - labels.time_s[left]
    return span_s, past_s / np.where(span_s > 0, span_s, 1.0)


def _mixed(
    values: NDArray[np.float64], left: NDArray[np.intp], right: NDArray[np.intp], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Linear between two samples; never outside of them by a rounding error."""
    before, after = values[left], values[right]
    mixed = before + weight[:, None] * (after - before)
    return np.clip(mixed, np.minimum(before, after), np.maximum(before, after))


def _right(rows: NDArray[np.float64]) -> bool:
    """Whether rows that are numbers are also what the file's rules ask for."""
    times = rows[:, 0]
    return bool((np.abs(times) <= _LATEST_S).all() and (times[1:] > times[:-1]).all()) and in_range(rows[:, 1:])


def _rows(text: LabelText) -> Iterator[list[float]]:
    """Row by row as the file's rules have it: what the quick way must agree with."""
    before_s = -np.inf
    for place, line in text.lines():
        time, *labels = cells_of(place, line, TIMED_HEADER)
        time_s, *values = numbers_in(place, line, TIMED_HEADER, [time, *(cell or b"-5" for cell in labels)])
        if not abs(time_s) <= _LATEST_S:
            raise ValueError(f"{place}: {time_s} is not a time of a video in s")
        if not time_s > before_s:
            raise ValueError(f"{place}: the time {time_s} s does not rise; the row before has {before_s} s")
        check_range(place, values)
        before_s = time_s
        yield [time_s, *values]
