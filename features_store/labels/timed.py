"""Labels at a rate of their own (`time,valence,arousal`), interpolated onto the times of the frames.

Only real numbers can have times of their own: classes and flags have one row per frame.

    samples   ●────●────○────●────●                  ●────●      ○ masked
    frames    | | | | | | | | | | | | | | | | | | | | | | | | |
    valid     + + + + . . . . + + + + . . . . . . . . + + + + .
                      └ masked ┘       └──── gap ────┘        └ after the last sample

Tested by tests/features_store/labels/test_timed.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .annotations import LabelTrack
from .kinds import VA, LabelKind
from .text import plain_numbers, read_header, read_text, row_numbers

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
    """Samples of one trial: `time_s` float64 [S] rising, `values` float64 [S, L], `valid` bool [S] (not masked).

    Raises ValueError without any sample, on times that do not rise, and on other shapes.
    """

    trial: str
    time_s: NDArray[np.float64]
    values: NDArray[np.float64]
    valid: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if not self.time_s.size or not (self.time_s[1:] > self.time_s[:-1]).all():
            raise ValueError(f"{self.trial}: times must rise, and there must be one")
        if self.values.ndim != 2 or len(self.values) != self.time_s.size or self.valid.shape != self.time_s.shape:
            raise ValueError(f"{self.trial}: {self.time_s.size} times, {self.values.shape} values")


def is_timed(path: Path, kind: LabelKind = VA) -> bool:
    """Whether the rows have times. Raises ValueError with `file:1` where the header is not one of the kind's."""
    return read_header(path, kind) == kind.timed_header


def read_timed(path: Path, kind: LabelKind = VA) -> TimedLabels:
    """Samples of one file; −5 or an empty cell masks a sample.

    Raises ValueError with `file:line` on a wrong header, a short row, a wrong number, a time that does not rise.
    """
    text = read_text(path, kind, (kind.timed_header,))
    rows = plain_numbers(text.body, 1 + kind.width, kind)
    times_s = np.zeros(0) if rows is None else rows[:, 0]
    if rows is None or (np.abs(times_s) > _LATEST_S).any() or (times_s[1:] <= times_s[:-1]).any():
        # Row by row as the file's rules have it: what the quick way must agree with.
        numbers: list[list[float]] = []
        before_s = -np.inf
        for place, line in text.lines():
            numbers.append(row_numbers(place, line, kind.timed_header, kind))
            at_s = numbers[-1][0]
            if not abs(at_s) <= _LATEST_S:
                raise ValueError(f"{place}: {at_s} is not a time of a video in s")
            if not at_s > before_s:
                raise ValueError(f"{place}: the time {at_s} s does not rise; the row before has {before_s} s")
            before_s = at_s
        rows = np.array(numbers, np.float64).reshape(-1, 1 + kind.width)
    if not len(rows):
        raise ValueError(f"{path}:1: no row follows the header")
    values = rows[:, 1:]
    return TimedLabels(path.stem, rows[:, 0], values, kind.labelled(values))


def at_frames(labels: TimedLabels, time_s: NDArray[np.float64]) -> LabelTrack:
    """Labels at the frames' times, float64 [T] in s: T rows, linear between two neighbouring samples.

    A frame on a valid sample is valid. Between two samples it is valid where both are and there is no gap between
    them: more than 2.5 of the median steps, and more than 0.25 s. Before the first and after the last it is not.
    Invalid rows are −5. Raises ValueError on times that are not finite.
    """
    if not np.isfinite(time_s).all():
        raise ValueError(f"{labels.trial}: a frame's time is not a finite number")
    steps_s = np.diff(labels.time_s)
    gap_s = max(GAP_STEPS * float(np.median(steps_s)), SHORTEST_GAP_S) if steps_s.size else 0.0
    left = np.clip(np.searchsorted(labels.time_s, time_s, side="right") - 1, 0, None)
    right = np.minimum(left + 1, labels.time_s.size - 1)
    # Distance of both neighbours in s, and the frame's place between them, 0 to 1.
    span_s = labels.time_s[right] - labels.time_s[left]
    past_s = np.clip(time_s, labels.time_s[0], labels.time_s[-1]) - labels.time_s[left]
    weight = past_s / np.where(span_s > 0, span_s, 1.0)
    nearest = np.where(weight <= 0.5, left, right)
    on = np.abs(time_s - labels.time_s[nearest]) <= _SAME_S
    between = (time_s >= labels.time_s[0]) & (time_s <= labels.time_s[-1]) & (span_s <= gap_s + _SAME_S)
    valid = np.where(on, labels.valid[nearest], between & labels.valid[left] & labels.valid[right])
    # Linear between two samples; never outside of them by a rounding error.
    before, after = labels.values[left], labels.values[right]
    mixed = before + weight[:, None] * (after - before)
    mixed = np.clip(mixed, np.minimum(before, after), np.maximum(before, after))
    values = np.where(on[:, None], labels.values[nearest], mixed)
    values[~valid] = VA.masked  # as of all kinds of real numbers
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
        fault = f"labels reach {real_s[-1]:.6g} s, the video ends at {end_s:.6g} s"
    elif real_s[0] < begin_s - beyond_s:
        fault = f"labels begin at {real_s[0]:.6g} s, the video begins at {begin_s:.6g} s"
    else:
        return
    raise ValueError(f"{labels.trial}: {fault}: is `time` in seconds, from the beginning of the video?")
