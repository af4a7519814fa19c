"""What a trial's time line shows: lines and gaps thinned to the screen, loudness, the boxes of every frame.

    rows [T] ─► buckets, one a pixel or so ─► of each its least and its greatest row, and one that is missing

So a spike of one frame and a gap of one frame are still there. Tested by tests/apps/report/test_signals.py.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...features_store.trial import Trial
from ...pipeline.media.readers import AudioReader
from ...pipeline.media.types import SAMPLE_RATE_HZ, VideoInfo

LINE_POINTS = 3000  # three for each of a thousand buckets: about the pixels of a screen
PAGE_POINTS = 90_000  # of all lines together: about 1.2 MB
MOST_GAPS = 500
_MOST_BOXES = 40_000
_TICKS_A_SECOND = 10_000
_NO_BOX = -(1 << 15)
_SILENCE_DB = -80.0
_ROWS_AT_ONCE = 64
_HOP_FRAMES = 4  # 40 ms of a log-mel patch: about what lies between two frames
_LOG_OFFSET = 0.01


@dataclass(frozen=True)
class Line:
    """One line: `values` [N] at `time_s` [N], NaN where there is none; `number` of a run gives colour and dashes."""

    name: str
    kind: Literal["signal", "truth", "run"]
    time_s: NDArray[np.float64]
    values: NDArray[Any]
    number: int = 0


@dataclass(frozen=True)
class Lane:
    """Lines over one axis from `low` to `high`, and the `gaps` [start, end) in s that are marked behind them."""

    title: str
    low: float
    high: float
    lines: tuple[Line, ...]
    gaps: tuple[tuple[float, float], ...] = ()
    gap_name: str = ""

    def as_json(self, most: int) -> dict[str, Any]:
        """What the page draws, of each line at most so many points."""
        lines = []
        for line in self.lines:
            kept = thin(line.values, most)
            values = [None if not np.isfinite(each) else round(float(each), 3) for each in line.values[kept]]
            about = {"name": line.name, "kind": line.kind, "number": line.number}
            lines.append({**about, "x": line.time_s[kept].round(3).tolist(), "y": values})
        gaps = [[round(start_s, 3), round(end_s, 3)] for start_s, end_s in self.gaps]
        about_lane = {"title": self.title, "low": self.low, "high": self.high, "gap_name": self.gap_name}
        return {**about_lane, "lines": lines, "gaps": gaps}


def lanes_json(lanes: Sequence[Lane]) -> list[dict[str, Any]]:
    """All lanes of a page, with so many points that the page stays small whatever the number of lines."""
    lines = sum(len(lane.lines) for lane in lanes)
    most = min(LINE_POINTS, PAGE_POINTS // max(1, lines))
    return [lane.as_json(most) for lane in lanes]


def thin(values: NDArray[Any], most: int) -> NDArray[np.int64]:
    """Rows [K] of `values` [N] to draw, rising, about `most` at most: all, or of each bucket extremes and a gap."""
    rows = len(values)
    if rows <= most:
        return np.arange(rows)
    buckets = max(1, most // 3)
    width = -(-rows // buckets)
    index = np.minimum(np.arange(buckets * width), rows - 1).reshape(buckets, width)
    of_bucket = values[index].astype(np.float64)
    there = np.isfinite(of_bucket)
    chosen = (
        np.where(there, of_bucket, np.inf).argmin(axis=1),
        np.where(there, of_bucket, -np.inf).argmax(axis=1),
        (~there).argmax(axis=1),  # the first row that is missing
    )
    each = np.arange(buckets)
    return np.unique(np.concatenate([index[each, column] for column in chosen]))


def row_ends(time_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """When the frame after each of `time_s` [T] is due, s [T]; after the last one a mean step."""
    step_s = (time_s[-1] - time_s[0]) / (len(time_s) - 1) if len(time_s) > 1 else 0.0
    return np.append(time_s[1:], time_s[-1:] + step_s)


def gaps_of(
    there: NDArray[np.bool_], time_s: NDArray[np.float64], most: int = MOST_GAPS
) -> tuple[tuple[float, float], ...]:
    """Where rows [T] are not there, [start, end) in s; of more than `most` those that are nearest each other join."""
    if not len(there) or len(there) != len(time_s):
        return ()
    edges = np.flatnonzero(np.diff(np.concatenate([[True], there, [True]]).astype(np.int8)))
    starts_s, ends_s = time_s[edges[::2]], row_ends(time_s)[edges[1::2] - 1]
    if len(starts_s) > most:
        between = np.argsort(-(starts_s[1:] - ends_s[:-1]), kind="stable")[: most - 1]
        kept = np.sort(between)
        starts_s, ends_s = starts_s[np.append(0, kept + 1)], ends_s[np.append(kept, len(ends_s) - 1)]
    return tuple(zip(starts_s.tolist(), ends_s.tolist(), strict=True))


def loudness_of_sound(info: VideoInfo, time_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Power of the sound from each frame to the next, dB of full scale, [T], at least -80; NaN without real sound.

    Raises MediaError where the sound cannot be decoded, ValueError where there is none.
    """
    ends_s = row_ends(time_s)
    edges = np.append(np.ceil(time_s * SAMPLE_RATE_HZ), np.ceil(ends_s[-1] * SAMPLE_RATE_HZ))
    energy, count, position = np.zeros(len(time_s)), np.zeros(len(time_s)), 0
    with AudioReader(info, until_s=float(ends_s[-1])) as reader:
        for block in reader:
            row = np.searchsorted(edges, np.arange(position, position + len(block)), side="right") - 1
            mask = (row >= 0) & (row < len(time_s))
            squares = block[mask].astype(np.float64) ** 2
            energy += np.bincount(row[mask], squares, len(time_s))
            count += np.bincount(row[mask], None, len(time_s))
            position += len(block)
        spans = reader.real_spans()
    power = energy / np.maximum(count, 1)
    real = np.zeros(len(time_s), np.bool_)
    for start_s, end_s in spans:
        real |= (time_s < end_s) & (ends_s > start_s)
    loudness = np.maximum(10 * np.log10(power + 1e-12), _SILENCE_DB)
    return np.where(real & (count > 0), loudness, np.nan)


def loudness_of_patches(trial: Trial) -> NDArray[np.float64]:
    """The same from stored log-mel patches, up to a constant: power of the 40 ms of each patch at its frame, dB [T].

    Read a few rows at a time. Raises KeyError without them, StoreMismatch where rows are broken.
    """
    align = trial.entries.get("logmel", {}).get("settings", {}).get("audio_align", "start")
    patches, found = trial["logmel"], np.full(trial.rows, np.nan)
    first = {"start": 0, "center": patches.shape[1] // 2 - _HOP_FRAMES // 2}.get(align, patches.shape[1] - _HOP_FRAMES)
    for start in range(0, trial.rows, _ROWS_AT_ONCE):
        rows = trial.window("logmel", start, min(start + _ROWS_AT_ONCE, trial.rows))
        spectrum = np.exp(rows[:, first : first + _HOP_FRAMES].astype(np.float64)) - _LOG_OFFSET
        power = (np.maximum(spectrum, 0) ** 2).mean(axis=(1, 2))
        found[start : start + len(rows)] = np.maximum(10 * np.log10(power + 1e-12), _SILENCE_DB)
    found[~trial.valid("logmel")] = np.nan
    return found


def frames_json(
    time_s: NDArray[np.float64],
    boxes: NDArray[np.float32] | None,
    scores: NDArray[np.float32] | None,
    start_s: object = None,
) -> dict[str, Any]:
    """Every frame for the page: its time, its box in px and the score of its face, as bytes in base64.

    `boxes` [T, 4], `scores` [T]. `start_s`: the first frame's PTS in the container, if it is known; `clock_s` is how
    far a player's clock, which is the container's, is ahead of that of the rows. Of very long trials every second,
    third … frame: `every` says which.
    """
    every = -(-len(time_s) // _MOST_BOXES) or 1
    ticks = np.rint(time_s[::every] * _TICKS_A_SECOND).astype("<i4")
    clock_s = round(start_s - float(time_s[0]), 6) if isinstance(start_s, int | float) and len(time_s) else 0.0
    frames: dict[str, Any] = {"every": every, "rows": len(time_s), "ticks": _coded(ticks), "box": "", "score": ""}
    frames["clock_s"] = clock_s
    if boxes is not None and np.isfinite(boxes).any():
        whole = np.clip(np.rint(np.nan_to_num(boxes[::every], nan=_NO_BOX)), _NO_BOX, -_NO_BOX - 1)
        frames["box"] = _coded(whole.astype("<i2"))
    if scores is not None:
        frames["score"] = _coded(np.rint(np.clip(scores[::every], 0, 1) * 255).astype(np.uint8))
    return frames


def _coded(values: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
