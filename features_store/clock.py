"""Frame times, patch starts, row counts and windows: pure arithmetic, no files.

    time          0        1/fps      2/fps                row i belongs to decoded frame i
    picture       |0       |1         |2
    log-mel       0 1 2 3 4 5 6 7 8 9 …                    frame k covers 25 ms from k · 10 ms
    patch         [round(100·time), + 96)                  0.96 s, placed by `start`, `center` or `end`

Tested by tests/features_store/test_clock.py.
"""

from __future__ import annotations

from typing import get_args

import numpy as np
from numpy.typing import NDArray

from .schema import AudioAlign, MissingFace

LOGMEL_RATE_HZ = 100
PATCH_FRAMES = 96
_ALIGN_SHIFT_FRAMES = {"start": 0, "center": -PATCH_FRAMES // 2, "end": -PATCH_FRAMES}
NO_ROW = -1
TOLERATED_ROWS = 5
TOLERATED_SHARE = 0.01


def patch_start_frames(time_s: NDArray[np.float64], align: AudioAlign) -> NDArray[np.int64]:
    """First log-mel frame of each row's patch: `round(100 · time)`, half to even, shifted by the alignment.

    `time_s` [T] in s on the container's clock; the result [T] counts 10 ms frames from time 0 and is negative
    where a patch begins before it. Off by at most 5 ms on any row at any rate. Raises ValueError on another
    alignment. Source: docs/sources.md (Audio rows).
    """
    if align not in get_args(AudioAlign):
        raise ValueError(f"audio alignment is one of {get_args(AudioAlign)}, got {align!r}")
    return np.rint(time_s * LOGMEL_RATE_HZ).astype(np.int64) + _ALIGN_SHIFT_FRAMES[align]


def fit_rows(num_rows: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Fit `num_rows` rows to a trial of `length`: trimmed from the rear, or the last row repeated.

    Returns (source row of each of the `length` rows, true where that row is not a repetition), both [T = `length`].
    With no rows at all every source is `NO_ROW`, a zero row.
    """
    index = np.arange(length, dtype=np.int64)
    real = index < num_rows
    return np.minimum(index, num_rows - 1) if num_rows else np.full(length, NO_ROW, np.int64), real


def differ_much(rows: int, frames: int) -> bool:
    """Whether label rows and frames are more than 5 rows apart: a warning names both numbers."""
    return abs(rows - frames) > TOLERATED_ROWS


def are_others(rows: int, frames: int) -> bool:
    """Whether label rows cannot be those of these frames: more than 5 rows and more than 1 % of the frames apart."""
    return differ_much(rows, frames) and abs(rows - frames) > TOLERATED_SHARE * frames


def fill_missing(found: NDArray[np.bool_], policy: MissingFace) -> NDArray[np.int64]:
    """Which of the found rows, counted in their own order, stands at each frame.

    `repeat`: the last one found before, at the head the next one; `zero`: `NO_ROW`. `found` bool [T]; the result [T].
    Raises ValueError on another policy.
    """
    if policy not in get_args(MissingFace):
        raise ValueError(f"missing-face policy is one of {get_args(MissingFace)}, got {policy!r}")
    if not found.any():
        return np.full(len(found), NO_ROW, np.int64)
    packed = np.cumsum(found, dtype=np.int64) - 1
    return np.maximum(packed, 0) if policy == "repeat" else np.where(found, packed, NO_ROW)


def fit_time(time_s: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Times in s of a trial of `length` rows, [T] → [`length`]: trimmed, or continued at the mean frame step."""
    if length <= len(time_s):
        return time_s[:length]
    step_s = (time_s[-1] - time_s[0]) / (len(time_s) - 1) if len(time_s) > 1 else 1 / 30
    beyond = np.arange(1, length - len(time_s) + 1, dtype=np.float64)
    return np.concatenate([time_s, time_s[-1] + step_s * beyond])


def usual_step_s(time_s: NDArray[np.float64]) -> float:
    """The usual time from one of the times [T], rising, s, to the next: the median; 0 where there is one alone."""
    return float(np.median(np.diff(time_s))) if len(time_s) > 1 else 0.0


def window_starts(rows: int, window: int, hop: int) -> NDArray[np.int64]:
    """First row of each window of a trial of `rows`: every hop, one more that ends with it; [0] if short."""
    if rows <= window:
        return np.zeros(min(rows, 1), np.int64)
    starts = np.arange(0, rows - window + 1, hop)
    return starts if starts[-1] + window == rows else np.append(starts, rows - window)
