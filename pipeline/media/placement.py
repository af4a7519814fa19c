"""Places of samples: the sound's running count as its clock, steered by the times of its frames. No files.

    decoder     |frame|frame|       |frame|fra        audio frames, each with its own PTS
    joined      |frame|frame|frame|frame|             what comes out of the resampler: no gaps
    placed  0 0 |frame|frame|0 0 0 0|frame|me|        sample n at n/16000 s from the origin

`docs/sync.md` says how jitter, gaps, drift and joins are distinguished.
Tested by tests/pipeline/media/test_placement.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .frame_clock import LONGEST_PAUSE_S, NEW_CLOCK_S, PartClock
from .types import SAMPLE_RATE_HZ, Part

BLOCK_SAMPLES = 10 * SAMPLE_RATE_HZ
# Of a time so much before and after is looked at: jitter comes back within it, a gap does not.
_WINDOW_S = 4.0
# What is within the window of a sample has to have its own window.
LOOK_AHEAD_S = 2 * _WINDOW_S
_FORGOTTEN_AT_ONCE = 256  # frames: lists are shortened that seldom
# As much as a patch may be off from its row, half a log-mel frame: what is off by less is where it should be.
_OUT_OF_PLACE_S = 0.005
# The rest of a drift that is known to be one: a line through 8 s of jitter of 20 ms trembles by 0.3 ms (sd).
_FOLLOWED_S = 0.001
# How often a drift is looked for, and how long a correction takes: 5 ms are a sample more in 100, never a hole.
_KNOT_S = 0.5
# The steepest drift, s per s: 1 % is promised, and a fifth to spare.
_STEEPEST = 0.012
# What a trend takes: over less, jitter of 20 ms is as steep as that.
_MIN_TREND_S = 2.0
_MIN_TREND_FRAMES = 8
# More would be hours of zeros to write, for times that are damaged.
_MOST_SILENCE_S = 24 * 3600
# A frame this long says by itself where it lies. Readers of Ogg guess times, but of packets of 0.12 s at most (Opus).
_LONG_FRAME_S = 0.5
# What a filter can hold back when it is built anew (16 samples of the slower rate: 16 ms at 1 kHz); more would be a
# line of the log that was lost.
_MOST_HELD_S = 0.02


@dataclass(frozen=True)
class _Run:
    """From running sample `start` on samples lie `shift` later, and in the next `length` `growth` more, evenly."""

    start: int
    shift: int
    growth: int = 0
    length: int = 1


class Placement:
    """Puts joined samples of `rate_hz` where the times of their frames put them: zeros into gaps, overlaps dropped.

    The running count of samples is the clock, and the frames' times steer it: what they are off by more than 5 ms in
    the middle of several seconds is followed evenly, by single samples; where they step and stay, it steps with
    them. Places are whole samples: off by at most 31 µs at 16 kHz.
    Call `place` when the frames of the next `LOOK_AHEAD_S` are known, or all are.
    """

    def __init__(
        self, origin_s: float, start_s: float, parts: Sequence[Part] = (), rate_hz: int = SAMPLE_RATE_HZ
    ) -> None:
        self._rate_hz = rate_hz
        self.joined_s = 0.0
        self.num_moves = 0
        self.num_impossible = 0
        self.drift_s = 0.0
        self.position = 0
        self.spans: list[tuple[int, int]] = []
        self._parts = PartClock(deque(parts))
        self._origin_s = origin_s
        self._shift_s = start_s - origin_s
        self._offset_s = 0.0
        # Of the frames with a time that matter still: begin in the joined sound, and what they are off from it, s.
        self._begin_s: list[float] = []
        self._off_s: list[float] = []
        self._starts_part: list[bool] = []
        self._starts_run: list[bool] = []
        self._long: list[bool] = []
        self._seen = 0
        self._undecided = 0
        self._run_from = 0
        self._knot_s = 0.0
        self._drifting = False
        self._impossible = False
        self._silence = 0
        self._runs: deque[_Run] = deque()
        self._taken = 0
        self._rebuilt: deque[tuple[int, int]] = deque([(0, 0)])

    def add(self, time_s: float | None, duration_s: float, after_samples: int | None = None) -> None:
        """Take in a decoded frame: its time on the container's clock and its length, s.

        `after_samples`: the resampler was built anew for this frame, when it had given so many samples.
        """
        if after_samples is not None:
            held = round(self.joined_s * self._rate_hz) - after_samples
            if abs(held - self._rebuilt[-1][1]) <= _MOST_HELD_S * self._rate_hz:
                self._rebuilt.append((after_samples, held))
        time_s = self._parts.on_one_clock(time_s)
        if time_s is None and not self.joined_s:
            time_s = self._origin_s + self._shift_s  # the stream's own start
        if time_s is not None:
            self._begin_s.append(self.joined_s)
            self._off_s.append(time_s - self._origin_s - self.joined_s)
            self._starts_part.append(self._parts.joined)
            self._starts_run.append(False)
            self._long.append(duration_s > _LONG_FRAME_S)
        self.joined_s += duration_s

    def place(self, samples: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Yield the next samples of the clock, zeros included, for the next joined `samples` float32 [S].

        Raises ValueError where the times ask for more silence than a day has.
        """
        while len(samples):
            while len(self._rebuilt) > 1 and self._rebuilt[1][0] <= self._taken:
                self._rebuilt.popleft()
            running = self._taken + self._rebuilt[0][1]
            count = min(len(samples), BLOCK_SAMPLES)
            if len(self._rebuilt) > 1:
                count = min(count, self._rebuilt[1][0] - self._taken)
            self._decide((running + count) / self._rate_hz)
            while len(self._runs) > 1 and self._runs[1].start <= running:
                self._runs.popleft()
            if len(self._runs) > 1:
                count = min(count, self._runs[1].start - running)
            run = self._runs[0] if self._runs else _Run(0, round(self._shift_s * self._rate_hz))
            if run.growth and running < run.start + run.length:
                count = min(count, run.start + run.length - running)
                n = np.arange(running, running + count + 1, dtype=np.int64)
                places = n + run.shift + np.minimum(n - run.start, run.length) * run.growth // run.length
                yield from self._put(int(places[0]), np.repeat(samples[:count], np.diff(places)))
            else:
                yield from self._put(running + run.shift + run.growth, samples[:count])
            self._taken += count
            samples = samples[count:]

    def real_spans(self) -> list[tuple[float, float]]:
        """Where there is real audio: [start, end) in s from the origin."""
        return [(start / self._rate_hz, stop / self._rate_hz) for start, stop in self.spans]

    def _decide(self, until_s: float) -> None:
        """Decide for every frame with a time that begins before `until_s` of the joined sound where it lies."""
        if self._undecided == len(self._begin_s) or self._begin_s[self._undecided] >= until_s:
            return
        # Forget the frames before the window of the last one that was decided.
        old_s = self._begin_s[self._undecided - 1] - _WINDOW_S if self._undecided else -np.inf
        old = int(np.searchsorted(self._begin_s, old_s))
        if old >= _FORGOTTEN_AT_ONCE:
            for each in (self._begin_s, self._off_s, self._starts_part, self._starts_run, self._long):
                del each[:old]
            self._undecided -= old
            self._seen -= old
            self._run_from = max(0, self._run_from - old)
        # As far as the window reaches, note which times are impossible and which frames begin a run: a piece of sound
        # without a step.
        begin, off = np.array(self._begin_s), np.array(self._off_s)
        while self._seen < len(begin) and begin[self._seen] < until_s + _WINDOW_S:
            at = self._seen
            # No clock runs like frames that overlap more than twofold in the next seconds and go on so.
            first, last = np.searchsorted(begin, [begin[at] + 0.5, begin[at] + 2.0])
            if last - first >= 3:  # near the end it is as it was
                pace = (off[first:last] - off[at]) / (begin[first:last] - begin[at])
                self._impossible = bool(((pace < -0.5) & (pace > -1.02)).all())
            if self._impossible:
                self.num_impossible += 1
                self._off_s[at] = off[at] = np.nan
            elif self._starts_part[at] or self._is_step(begin, off, at):
                self._starts_run[at] = True
                self._run_from = at
            self._seen += 1
        while self._undecided < len(begin) and begin[self._undecided] < until_s:
            at = self._undecided
            if not np.isnan(off[at]):
                self._steer(begin, off, at)
            elif not self._runs:
                start, shift = round(begin[at] * self._rate_hz), round(self._shift_s * self._rate_hz)
                self._runs.append(_Run(start, shift))
            self._undecided += 1

    def _steer(self, begin: NDArray[np.float64], off: NDArray[np.float64], at: int) -> None:
        """Place what follows the frame `at`: a run that it begins, or a drift that is noticed here."""
        starts_run = self._starts_run[at] or not self._runs
        if not starts_run and begin[at] < self._knot_s:
            return
        self._knot_s = float(begin[at]) + _KNOT_S
        start = round(begin[at] * self._rate_hz)
        last = int(np.searchsorted(begin, begin[at] + _WINDOW_S, side="right"))
        end = next((each for each in range(at + 1, last) if self._starts_run[each]), last)
        if starts_run:
            by_s = float(off[at]) + self._offset_s - self._shift_s
            earliest_s = -NEW_CLOCK_S if self._runs else -LONGEST_PAUSE_S
            if not self._starts_part[at]:
                self.num_moves += bool(self._runs)
                if not earliest_s <= by_s <= LONGEST_PAUSE_S:
                    self._offset_s -= by_s  # a new clock goes on where the old one ended
            level_s, stamp_s = self._trend(begin, off, at, end, float(begin[at])), float(off[at]) + self._offset_s
            self._shift_s = stamp_s if abs(level_s - stamp_s) <= _OUT_OF_PLACE_S else level_s
            self._runs.append(_Run(start, round(self._shift_s * self._rate_hz)))
            self._drifting = False
            return
        tolerated_s = _FOLLOWED_S if self._drifting else _OUT_OF_PLACE_S
        if np.nanmax(np.abs(off[at:end] + self._offset_s - self._shift_s)) <= tolerated_s:
            return
        level_s = self._trend(begin, off, at, end, self._knot_s)
        if abs(level_s - self._shift_s) > tolerated_s:
            shift, length = round(self._shift_s * self._rate_hz), round(_KNOT_S * self._rate_hz)
            growth = max(round(level_s * self._rate_hz) - shift, -length // 2)
            self._runs.append(_Run(start, shift, growth, length))
            self._shift_s = (shift + growth) / self._rate_hz
            self._drifting = True
            self.drift_s += abs(growth) / self._rate_hz

    def _is_step(self, begin: NDArray[np.float64], off: NDArray[np.float64], at: int) -> bool:
        """Whether the times step at this frame, by more than they jitter, and stay."""
        if np.nanmax(np.abs(off[max(self._run_from, at - 3) : at] - off[at]), initial=0.0) <= _OUT_OF_PLACE_S:
            return False
        before = np.arange(max(self._run_from, int(np.searchsorted(begin, begin[at] - _WINDOW_S))), at)
        before = before[~np.isnan(off[before])]
        last = int(np.searchsorted(begin, begin[at] + _WINDOW_S, side="right"))
        new_part = next((each for each in range(at + 1, last) if self._starts_part[each]), last)
        after = np.arange(at, new_part)
        if not len(before) or (len(after) == 1 and not self._long[at]):
            return False
        slope, _ = _line(begin[before] - begin[at], off[before])
        old, new = (off[each] - slope * (begin[each] - begin[at]) for each in (before, after))
        old_s, new_s = np.median(old[-3:]), np.median(new[:3])
        # The frame itself is nearer to what follows, or the step is a frame later.
        if abs(new_s - old_s) <= _OUT_OF_PLACE_S or abs(off[at] - new_s) >= abs(off[at] - np.median(old)):
            return False
        rise_s = np.quantile(new, 0.1) - np.quantile(old, 0.9)
        fall_s = np.quantile(old, 0.1) - np.quantile(new, 0.9)
        return bool((rise_s if new_s > old_s else fall_s) > _OUT_OF_PLACE_S)

    def _trend(self, begin: NDArray[np.float64], off: NDArray[np.float64], at: int, end: int, place_s: float) -> float:
        """Where the times of this run put what is joined at `place_s`: a line through those from a window before
        frame `at` to frame `end`.
        """
        first = int(np.searchsorted(begin, begin[at] - _WINDOW_S))
        begun = next((each for each in range(at, first, -1) if self._starts_run[each]), first)
        around = np.arange(begun, end)
        around = around[~np.isnan(off[around])]
        _, level_s = _line(begin[around] - place_s, off[around])
        return level_s + self._offset_s

    def _put(self, start: int, samples: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Yield `samples` from place `start` on: zeros before them, and without what overlaps the sound before."""
        samples = samples[max(0, self.position - start) :]
        if not len(samples):
            return
        start = max(start, self.position)
        self._silence += start - self.position
        if self._silence > _MOST_SILENCE_S * self._rate_hz:
            raise ValueError("more than 24 h of silence between its parts: its times are damaged")
        while self.position < start:
            zeros = np.zeros(min(BLOCK_SAMPLES, start - self.position), np.float32)
            self.position += len(zeros)
            yield zeros
        joins = self.spans and self.spans[-1][1] == start
        since = self.spans.pop()[0] if joins else start
        self.position = start + len(samples)
        self.spans.append((since, self.position))
        yield samples


def _line(at_s: NDArray[np.float64], off_s: NDArray[np.float64]) -> tuple[float, float]:
    """Slope, and the value at 0, of a line through what is not far off the middle; a short piece is level."""
    middle_s = np.median(off_s) if len(off_s) else np.nan
    if len(off_s) < _MIN_TREND_FRAMES or at_s[-1] - at_s[0] < _MIN_TREND_S:
        return 0.0, float(middle_s)
    far_s = np.abs(off_s - middle_s)
    near = far_s <= 4 * np.median(far_s) + _STEEPEST * _WINDOW_S
    at_s, off_s = at_s[near], off_s[near]
    centre_s, level_s = at_s.mean(), off_s.mean()
    variation = ((at_s - centre_s) ** 2).sum()
    slope = float(((at_s - centre_s) * (off_s - level_s)).sum() / variation) if variation else 0.0
    slope = min(max(slope, -_STEEPEST), _STEEPEST)
    return slope, float(level_s - slope * centre_s)
