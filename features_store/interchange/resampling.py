"""Rows at a rate of their own onto the frames of a trial: which of them make each row. Index arithmetic, no files.

    file      ●───────●───────●───────●               ●───────●
    frames  | | | | | | | | | | | | | | | | | | | | | | | | | | | |
    valid   . + + + + + + + + + + + + + . . . . . . . + + + + + . .
            └ before the first          └──── gap ────┘         └ after the last, by more than half a step

A row of a trial that is not valid holds the nearest row of the file.
Tested by tests/features_store/interchange/test_resampling.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..clock import fit_rows, usual_step_s

Resample = Literal["linear", "nearest", "mean"]

GAP_STEPS = 3.0
# Times are written with six decimals and more: a frame this near to a row lies on it.
_SAME_S = 1e-6


@dataclass(frozen=True)
class RowPlan:
    """Row `row[p]` of a trial takes row `source[p]` of a file times `weight[p]`; int64 and float64 [P], by `row`.

    `valid` bool [T]: which of the trial's T rows are made from rows of their own time.
    """

    row: NDArray[np.int64]
    source: NDArray[np.int64]
    weight: NDArray[np.float64]
    valid: NDArray[np.bool_]


def row_a_frame(good: NDArray[np.bool_], length: int) -> RowPlan:
    """Row i of the file for frame i: cut from the rear to `length`, or the last row repeated and not valid.

    `good` bool [N]: rows of the file that may be used, at least one; in place of others stands the one before.
    """
    source, real = fit_rows(len(good), length)
    return _without_bad(np.arange(length), source, np.ones(length), real, source, good)


def rows_at(frames: NDArray[np.int64], good: NDArray[np.bool_], length: int) -> RowPlan:
    """Row j of the file for frame `frames[j]`, rising int64 [N]; frames that have none hold the row before, not valid.

    Rows of frames beyond `length` are left out; those before the first hold the first one. `good` as for `row_a_frame`.
    """
    every = np.arange(length)
    source = np.maximum(np.searchsorted(frames, every, side="right") - 1, 0)
    return _without_bad(every, source, np.ones(length), np.isin(every, frames), source, good)


def at_times(
    source_s: NDArray[np.float64], time_s: NDArray[np.float64], resample: Resample, good: NDArray[np.bool_]
) -> RowPlan:
    """Rows at `source_s` float64 [N], rising, for frames at `time_s` float64 [T], both in s on one clock.

    `linear`: between the two neighbours in time; `nearest`: the nearer one, of two the earlier; `mean`: of the rows in
    [time of the frame, time of the next), else the nearest. Not valid, and the nearest row: frames more than half a
    median step of the file before its first row or after its last, and those between two rows that are more than three
    median steps apart, unless they lie on one of them. `good` as for `row_a_frame`.
    """
    frames = np.arange(len(time_s))
    step_s = usual_step_s(source_s)
    after = np.searchsorted(source_s, time_s)
    left, right = np.maximum(after - 1, 0), np.minimum(after, len(source_s) - 1)
    to_left_s, span_s = time_s - source_s[left], source_s[right] - source_s[left]
    nearest = np.where(to_left_s <= source_s[right] - time_s, left, right)
    is_on = np.abs(time_s - source_s[nearest]) <= _SAME_S
    beyond_s = np.maximum(source_s[0] - time_s, time_s - source_s[-1])
    held = (beyond_s > step_s / 2 + _SAME_S) | (~is_on & (span_s > GAP_STEPS * step_s + _SAME_S))
    row, source, weight = frames, nearest, np.ones(len(frames))
    if resample == "linear":
        share = np.where(held | (span_s <= 0), 0.0, to_left_s / np.where(span_s > 0, span_s, 1.0))
        row = np.repeat(frames, 2)
        source = np.column_stack([np.where(held, nearest, left), np.where(held, nearest, right)]).ravel()
        weight = np.column_stack([1 - share, share]).ravel()
        row, source, weight = (each[weight != 0] for each in (row, source, weight))
    elif resample == "mean":
        ends_s = np.append(time_s[1:], time_s[-1:] + (np.median(np.diff(time_s)) if len(time_s) > 1 else step_s))
        stop = np.searchsorted(source_s, ends_s)
        count = stop - after
        row = np.repeat(frames, np.maximum(count, 1))
        within = np.arange(len(row)) - np.repeat(
            np.cumsum(np.maximum(count, 1)) - np.maximum(count, 1), np.maximum(count, 1)
        )
        source = np.where(count > 0, after, nearest)[row] + within
        weight = 1.0 / np.maximum(count, 1)[row]
        held &= count == 0
    return _without_bad(row, source, weight, ~held, left, good)


def _without_bad(
    row: NDArray[np.int64],
    source: NDArray[np.int64],
    weight: NDArray[np.float64],
    valid: NDArray[np.bool_],
    before: NDArray[np.int64],
    good: NDArray[np.bool_],
) -> RowPlan:
    """A plan whose rows of bad ones are not valid, and hold the last good one up to `before` [T], else the next."""
    if good.all():
        return RowPlan(row, source, weight, valid)
    touched = np.zeros(len(valid), np.bool_)
    touched[row[~good[source]]] = True
    last_good = np.maximum.accumulate(np.where(good, np.arange(len(good)), -1))
    hold = np.where(last_good >= 0, last_good, np.argmax(good))[before]
    kept, changed = ~touched[row], np.flatnonzero(touched)
    row = np.concatenate([row[kept], changed])
    order = np.argsort(row, kind="stable")
    source = np.concatenate([source[kept], hold[changed]])[order]
    weight = np.concatenate([weight[kept], np.ones(len(changed))])[order]
    return RowPlan(row[order], source, weight, valid & ~touched)
