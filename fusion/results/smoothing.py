"""Predictions smoothed over time, after overlaps and runs are averaged; the caller clips them to their limits again.

    ma:7        moving average, the 3 rows before, the row itself and the 3 after
    ma:7,13     7 rows for valence, 13 for arousal (team RAS, 10th ABAW)
    savgol:15   Savitzky-Golay: a cubic through the 15 rows around each

Tested by tests/fusion/results/test_smoothing.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from ...shell.text import counted

Kind = Literal["none", "ma", "savgol"]
Float = TypeVar("Float", np.float32, np.float64)

# Su Zhang smooths with MuSe-Toolbox (ABAW3's gen_result.py, "5/15"): there `savgol_filter(rows, 5, 3)` on each
# fold's prediction, and a mean over 15 rows on their fusion. So the order is 3, and 5 and 15 are windows.
SAVGOL_ORDER = 3
_LEAST = {"ma": 1, "savgol": SAVGOL_ORDER + 2}
_FORM = re.compile(r"(ma|savgol):(\d{1,6}(?:,\d{1,6})?)")


@dataclass(frozen=True)
class Smoothing:
    """What to smooth with: `frames` is the window in rows, one number for every task or one for each.

    Raises ValueError on another kind, and on windows that are even or too short.
    """

    kind: Kind
    frames: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind) or bool(self.frames) == (self.kind == "none"):
            raise ValueError(f"smoothing is none, ma:K or savgol:K, got {self.kind!r} with the windows {self.frames}")
        least = _LEAST.get(self.kind, 1)
        for frames in self.frames:
            if frames < least or frames % 2 == 0:
                raise ValueError(f"{self}: a window of {self.kind} is an odd number of rows, {least} or more")

    def __str__(self) -> str:
        return f"{self.kind}:{','.join(map(str, self.frames))}" if self.frames else self.kind


NONE = Smoothing("none")


def parse_smoothing(text: str) -> Smoothing:
    """`none`, `ma:7`, `savgol:15`, or with one window per task (valence first) `ma:7,13`; `str` is the way back.

    Raises ValueError on anything else, and on windows that are even or too short.
    """
    if text == "none":
        return NONE
    match = _FORM.fullmatch(text)
    if not match:
        raise ValueError(f"smoothing is none, ma:K or savgol:K (K rows; K,L for valence and arousal), got {text!r}")
    frames = tuple(int(number) for number in match[2].split(","))
    return Smoothing("ma" if match[1] == "ma" else "savgol", frames)


def smooth(values: NDArray[Float], smoothing: Smoothing) -> NDArray[Float]:
    """Each column of `values` [T, C] smoothed over time; the result [T, C] is of the same type, not clipped.

    At the ends `ma` averages the rows that are there; `savgol` goes on with the cubic of the outermost window.
    A trial shorter than a window of `savgol` gets the longest one that fits, and stays as it is below 5 rows.
    Raises ValueError if C is not the number of windows. Source: a mean, and scipy's `savgol_filter`.
    """
    if smoothing.kind == "none":
        return values
    width = values.shape[1]
    if len(smoothing.frames) not in (1, width):
        raise ValueError(
            f"{smoothing} has {counted(len(smoothing.frames), 'window')}, "
            f"but the predictions have {counted(width, 'column')}"
        )
    frames = smoothing.frames * (width // len(smoothing.frames))
    columns = []
    for i, window in enumerate(frames):
        column = values[:, i].astype(np.float64)
        if smoothing.kind == "ma":
            columns.append(_moving_average(column, window))
            continue
        from scipy.signal import savgol_filter  # noqa: PLC0415 - slow to load

        fitting = min(window, len(column) - 1 + len(column) % 2)
        columns.append(savgol_filter(column, fitting, SAVGOL_ORDER) if fitting >= _LEAST["savgol"] else column)
    return np.stack(columns, axis=1).astype(values.dtype)


def _moving_average(column: NDArray[np.float64], frames: int) -> NDArray[np.float64]:
    """Mean over [i − K//2, i + K//2], cut where the trial ends.

    A running sum would be faster and lose the last bits: a constant must come out as it went in.
    """
    if not len(column):
        return column
    window = np.ones(min(frames, 2 * len(column) - 1))
    middle = slice(len(window) // 2, len(window) // 2 + len(column))
    rows = np.convolve(np.ones(len(column)), window)[middle]
    return np.convolve(column, window)[middle] / rows
