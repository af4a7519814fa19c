"""Times of frames, places of samples: the arithmetic of one clock. No files.

    decoder     |frame|frame|       |frame|fra        audio frames, each with its own PTS
    joined      |frame|frame|frame|frame|             what comes out of the resampler: no gaps
    placed  0 0 |frame|frame|0 0 0 0|frame|me|        sample n at n/16000 s from the origin

`docs/sync.md` says how jitter, gaps, drift and joins are told apart.
Tested by tests/pipeline/media/test_timeline.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
BLOCK_SAMPLES = 10 * SAMPLE_RATE_HZ
# Of a time so much before and after is looked at: jitter comes back within it, a gap does not.
_WINDOW_S = 4.0
# What is within the window of a sample has to have its own window.
LOOK_AHEAD_S = 2 * _WINDOW_S
_FORGOTTEN_AT_ONCE = 256  # frames: lists are shortened that seldom
# A clock that falls by more has started anew; parts of a joined recording are longer, jitter is smaller.
NEW_CLOCK_S = 0.5
# Forwards too: a time this far ahead of the one before is damaged, and waiting for it would take for ever.
LONGEST_PAUSE_S = 12 * 3600.0
# So many frames that follow one decide whether it is the one that is out of place: with it they are six, of which
# three may be damaged. As many rows wait.
FRAMES_AHEAD = 5
# As much as a patch may be off from its row, half a log-mel frame: what is off by less is where it should be.
_OUT_OF_PLACE_S = 0.005
# The rest of a drift that is known to be one: a line through 8 s of jitter of 20 ms trembles by 0.3 ms (sd).
_FOLLOWED_S = 0.001
# So often a drift is looked for, and over so long a correction is spread: 5 ms are a sample more in 100, never a hole.
_KNOT_S = 0.5
# The steepest drift, s per s: 1 % is promised, and a fifth to spare.
_STEEPEST = 0.012
# What a trend takes: over less, jitter of 20 ms is as steep as that.
_MIN_TREND_S = 2.0
_MIN_TREND_FRAMES = 8
# More would be hours of zeros to write, for times that are damaged.
_MOST_SILENCE_SAMPLES = 24 * 3600 * SAMPLE_RATE_HZ
# A frame this long says by itself where it lies. Readers of Ogg guess times, but of packets of 0.12 s at most (Opus).
_LONG_FRAME_S = 0.5
# What a filter can hold back when it is built anew (16 samples of the slower rate: 16 ms at 1 kHz); more would be a
# line of the log that was lost.
_MOST_HELD_SAMPLES = 320


class Timed(Protocol):
    """What carries a time: s on the container's clock, or None, and the clock's tick."""

    @property
    def time_s(self) -> float | None:
        """Presentation time, s."""

    @property
    def tick_s(self) -> float:
        """The clock's tick, s."""


@dataclass(frozen=True)
class Part:
    """One recording of several in a file, as one stream sees it: its times, s, and what puts them on one clock."""

    first_s: float
    last_s: float
    offset_s: float


class PartClock:
    """Puts the times of one stream of a joined recording on one clock: all streams of a part move by one amount."""

    def __init__(self, parts: Sequence[Part] = ()) -> None:
        self._left = deque(parts)
        self._before_s: float | None = None
        self.num_joins = 0
        self.joined = False

    def on_one_clock(self, time_s: float | None) -> float | None:
        """A frame's time, s; `joined` says whether it is the first of a new part."""
        self.joined = False
        if time_s is None or not self._left:
            return time_s
        if len(self._left) > 1 and self._is_of_the_next(time_s):
            self._left.popleft()
            self.joined = True
            self.num_joins += 1
        self._before_s = time_s
        return time_s + self._left[0].offset_s

    def _is_of_the_next(self, time_s: float) -> bool:
        if self._before_s is None:
            return False
        here, after = self._left[0], self._left[1]
        elsewhere = not -NEW_CLOCK_S / 2 <= time_s - self._before_s <= LONGEST_PAUSE_S
        inside = after.first_s - NEW_CLOCK_S / 2 <= time_s <= after.last_s + NEW_CLOCK_S / 2
        # an outlier of this part is far from the start of the next, or this part is far from its end
        near_start = time_s - after.first_s <= NEW_CLOCK_S or self._before_s > here.last_s - NEW_CLOCK_S
        return elsewhere and inside and near_start


class FrameClock:
    """Frame times from the origin, strictly rising: missing, falling and absurd times are repaired, minimally.

    A time that is out of line with the frames around it is put between its neighbours; who is out of line is said
    by the next few frames, so that some rows wait for them.
    """

    def __init__(self, origin_s: float, start_s: float, step_s: float, parts: Sequence[Part] = ()) -> None:
        self.num_repaired = 0
        self._offset_s = -origin_s
        self._first_s = start_s - origin_s
        self._step_s = step_s
        self._last_s: float | None = None
        self._parts = PartClock(parts)
        self._waiting: deque[tuple[float | None, float]] = deque()

    @property
    def num_joins(self) -> int:
        """How often the recording's clock started anew."""
        return self._parts.num_joins

    def add(self, stamp: Timed | None) -> None:
        """Take in the next frame's stamp."""
        time_s = self._parts.on_one_clock(None if stamp is None else stamp.time_s)
        self._waiting.append((time_s, 0.0 if stamp is None else stamp.tick_s))

    def settled(self, ended: bool) -> list[float]:
        """Times of the next frames, in s from the origin, as far as they are known; all when the stream has `ended`."""
        times: list[float] = []
        while self._waiting:
            if self._is_plain():
                self._last_s = float((self._waiting.popleft()[0] or 0.0) + self._offset_s)
            elif ended or len(self._waiting) > FRAMES_AHEAD:
                self._last_s = self._next()
            else:
                break
            times.append(self._last_s)
        return times

    def _is_plain(self) -> bool:
        time_s = self._waiting[0][0]
        if time_s is None or self._last_s is None:
            return False
        return 0 < time_s + self._offset_s - self._last_s < 1.5 * self._step_s

    def _next(self) -> float:
        given_s, tick_s = self._waiting.popleft()
        following = [each + self._offset_s for each, _ in self._waiting if each is not None][:FRAMES_AHEAD]
        before_s = self._first_s if self._last_s is None else self._last_s
        expected_s = before_s if self._last_s is None else before_s + self._step_s
        time_s = None if given_s is None else given_s + self._offset_s
        if time_s is not None and self._starts_anew(time_s, before_s, following):
            self._offset_s += expected_s - time_s
            self.num_repaired += 1
            return expected_s
        if time_s is None or self._is_out_of_line(time_s, before_s, expected_s, following):
            self.num_repaired += 1
            time_s = self._between(before_s, expected_s, tick_s)
        return float(time_s)

    def _starts_anew(self, time_s: float, before_s: float, following: list[float]) -> bool:
        """Whether this frame and most of the next ones are of a clock that starts anew, or of years ahead."""
        low_s, high_s = before_s - NEW_CLOCK_S, before_s + LONGEST_PAUSE_S
        if self._last_s is None:
            low_s = before_s - 2 * NEW_CLOCK_S
        # The later ones are that much further on, in either case.
        gone_s = [each - steps * self._step_s for steps, each in enumerate((time_s, *following))]
        elsewhere = [not low_s <= each <= high_s for each in gone_s]
        return elsewhere[0] and (len(elsewhere) == 1 or 2 * sum(elsewhere) > len(elsewhere))

    def _is_out_of_line(self, time_s: float, before_s: float, expected_s: float, following: list[float]) -> bool:
        if self._last_s is not None and time_s <= before_s:
            return True
        against = [each for each in following if each <= time_s and (each > before_s or self._last_s is None)]
        if not against:
            return time_s > before_s + LONGEST_PAUSE_S
        if len(against) > 1:
            return True
        return abs(time_s - expected_s) > abs(against[0] - expected_s - self._step_s) + self._step_s

    def _between(self, before_s: float, expected_s: float, tick_s: float) -> float:
        """A time for a frame without one: a frame step after the one before, and before the next good one."""
        if self._last_s is None:
            return expected_s
        for missing, (given_s, _) in enumerate(self._waiting, start=2):
            if given_s is None or not before_s < given_s + self._offset_s < expected_s + missing * self._step_s:
                continue
            room_s = (given_s + self._offset_s - before_s) / missing
            expected_s = before_s + min(room_s, self._step_s) if room_s > tick_s / 2 else before_s + tick_s
            break
        else:
            known = [given_s + self._offset_s for given_s, _ in self._waiting if given_s is not None]
            if known and max(known) <= before_s:  # they fell, by less than a new clock does: wait for them
                expected_s = before_s + tick_s
        return float(max(expected_s, np.nextafter(before_s, np.inf)))


@dataclass(frozen=True)
class _Run:
    """From running sample `start` on samples lie `shift` later, and in the next `length` `growth` more, evenly."""

    start: int
    shift: int
    growth: int = 0
    length: int = 1

    def places(self, first: int, count: int) -> NDArray[np.int64]:
        """Places [count + 1] on the clock of the running samples from `first` on."""
        n = np.arange(first, first + count + 1, dtype=np.int64)
        places: NDArray[np.int64] = (
            n + self.shift + np.minimum(n - self.start, self.length) * self.growth // self.length
        )
        return places


class Placement:
    """Puts joined 16 kHz samples where their frames' times say: zeros into gaps, overlaps dropped.

    The running count of samples is the clock, and the frames' times steer it: what they are off by more than 5 ms in
    the middle of several seconds is followed evenly, by single samples; where they step and stay, it steps with
    them. Places are whole samples: off by at most 31 µs.
    Call `place` when the frames of the next `LOOK_AHEAD_S` are known, or all are.
    """

    def __init__(self, origin_s: float, start_s: float, parts: Sequence[Part] = ()) -> None:
        self.joined_s = 0.0
        self.num_moves = 0
        self.num_impossible = 0
        self.drift_s = 0.0
        self.position = 0
        self.spans: list[tuple[int, int]] = []
        self._parts = PartClock(parts)
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

    @property
    def num_joins(self) -> int:
        """How often the recording's clock started anew."""
        return self._parts.num_joins

    def add(self, time_s: float | None, duration_s: float, after_samples: int | None = None) -> None:
        """Take in a decoded frame: its time on the container's clock and its length, s.

        `after_samples`: the resampler was built anew for this frame, when it had given so many samples.
        """
        if after_samples is not None:
            held = round(self.joined_s * SAMPLE_RATE_HZ) - after_samples
            if abs(held - self._rebuilt[-1][1]) <= _MOST_HELD_SAMPLES:
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
            self._decide((running + count) / SAMPLE_RATE_HZ)
            while len(self._runs) > 1 and self._runs[1].start <= running:
                self._runs.popleft()
            if len(self._runs) > 1:
                count = min(count, self._runs[1].start - running)
            run = self._runs[0] if self._runs else _Run(0, round(self._shift_s * SAMPLE_RATE_HZ))
            if run.growth and running < run.start + run.length:
                count = min(count, run.start + run.length - running)
                places = run.places(running, count)
                yield from self._put(int(places[0]), np.repeat(samples[:count], np.diff(places)))
            else:
                yield from self._put(running + run.shift + run.growth, samples[:count])
            self._taken += count
            samples = samples[count:]

    def real_spans(self) -> list[tuple[float, float]]:
        """Where there is real audio: [start, end) in s from the origin."""
        return [(start / SAMPLE_RATE_HZ, stop / SAMPLE_RATE_HZ) for start, stop in self.spans]

    def _decide(self, until_s: float) -> None:
        """Say of every frame with a time that begins before `until_s` of the joined sound where it lies."""
        if self._undecided == len(self._begin_s) or self._begin_s[self._undecided] >= until_s:
            return
        self._forget()
        begin, off = np.array(self._begin_s), np.array(self._off_s)
        while self._seen < len(begin) and begin[self._seen] < until_s + _WINDOW_S:
            self._look_at(begin, off, self._seen)
            self._seen += 1
        while self._undecided < len(begin) and begin[self._undecided] < until_s:
            if not self._runs and np.isnan(off[self._undecided]):
                self._runs.append(
                    _Run(round(begin[self._undecided] * SAMPLE_RATE_HZ), round(self._shift_s * SAMPLE_RATE_HZ))
                )
            elif not np.isnan(off[self._undecided]):
                self._steer(begin, off, self._undecided)
            self._undecided += 1

    def _look_at(self, begin: NDArray[np.float64], off: NDArray[np.float64], at: int) -> None:
        """Note whether a frame's time is impossible, or begins a run: a piece of sound without a step."""
        if self._is_impossible(begin, off, at):
            self.num_impossible += 1
            self._off_s[at] = off[at] = np.nan
        elif self._starts_part[at] or self._is_step(begin, off, at):
            self._starts_run[at] = True
            self._run_from = at

    def _steer(self, begin: NDArray[np.float64], off: NDArray[np.float64], at: int) -> None:
        """Place what follows the frame `at`."""
        start, knot_s = round(begin[at] * SAMPLE_RATE_HZ), float(begin[at]) + _KNOT_S
        if self._starts_run[at] or not self._runs:
            by_s = float(off[at]) + self._offset_s - self._shift_s
            earliest_s = -NEW_CLOCK_S if self._runs else -LONGEST_PAUSE_S
            if not self._starts_part[at]:
                self.num_moves += bool(self._runs)
                if not earliest_s <= by_s <= LONGEST_PAUSE_S:
                    self._offset_s -= by_s  # a new clock goes on where the old one ended
            level_s, stamp_s = self._trend(begin, off, at, float(begin[at])), float(off[at]) + self._offset_s
            self._shift_s = stamp_s if abs(level_s - stamp_s) <= _OUT_OF_PLACE_S else level_s
            self._runs.append(_Run(start, round(self._shift_s * SAMPLE_RATE_HZ)))
            self._knot_s, self._drifting = knot_s, False
        elif begin[at] >= self._knot_s:
            self._knot_s = knot_s
            tolerated_s = _FOLLOWED_S if self._drifting else _OUT_OF_PLACE_S
            ahead = off[at : self._end_of_run(begin, at)]
            if np.nanmax(np.abs(ahead + self._offset_s - self._shift_s)) <= tolerated_s:
                return
            level_s = self._trend(begin, off, at, knot_s)
            if abs(level_s - self._shift_s) > tolerated_s:
                shift, length = round(self._shift_s * SAMPLE_RATE_HZ), round(_KNOT_S * SAMPLE_RATE_HZ)
                growth = max(round(level_s * SAMPLE_RATE_HZ) - shift, -length // 2)
                self._runs.append(_Run(start, shift, growth, length))
                self._shift_s = (shift + growth) / SAMPLE_RATE_HZ
                self._drifting = True
                self.drift_s += abs(growth) / SAMPLE_RATE_HZ

    def _is_impossible(self, begin: NDArray[np.float64], off: NDArray[np.float64], at: int) -> bool:
        """Whether the frames of the next seconds overlap more than twofold and go on so: no clock runs like that."""
        first, last = np.searchsorted(begin, [begin[at] + 0.5, begin[at] + 2.0])
        if last - first < 3:
            return self._impossible  # near the end it is as it was
        pace = (off[first:last] - off[at]) / (begin[first:last] - begin[at])
        self._impossible = bool(((pace < -0.5) & (pace > -1.02)).all())
        return self._impossible

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

    def _end_of_run(self, begin: NDArray[np.float64], at: int) -> int:
        last = int(np.searchsorted(begin, begin[at] + _WINDOW_S, side="right"))
        return next((each for each in range(at + 1, last) if self._starts_run[each]), last)

    def _trend(self, begin: NDArray[np.float64], off: NDArray[np.float64], at: int, where_s: float) -> float:
        """Where the times of this run put what is joined at `where_s`: a line through those around frame `at`."""
        first = int(np.searchsorted(begin, begin[at] - _WINDOW_S))
        begun = next((each for each in range(at, first, -1) if self._starts_run[each]), first)
        around = np.arange(begun, self._end_of_run(begin, at))
        around = around[~np.isnan(off[around])]
        _, level_s = _line(begin[around] - where_s, off[around])
        return level_s + self._offset_s

    def _forget(self) -> None:
        if not self._undecided:
            return
        old = int(np.searchsorted(self._begin_s, self._begin_s[self._undecided - 1] - _WINDOW_S))
        if old < _FORGOTTEN_AT_ONCE:
            return
        for each in (self._begin_s, self._off_s, self._starts_part, self._starts_run, self._long):
            del each[:old]
        self._undecided -= old
        self._seen -= old
        self._run_from = max(0, self._run_from - old)

    def _put(self, start: int, samples: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        samples = samples[max(0, self.position - start) :]
        if not len(samples):
            return
        start = max(start, self.position)
        self._silence += start - self.position
        if self._silence > _MOST_SILENCE_SAMPLES:
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
    spread = ((at_s - centre_s) ** 2).sum()
    slope = float(((at_s - centre_s) * (off_s - level_s)).sum() / spread) if spread else 0.0
    slope = min(max(slope, -_STEEPEST), _STEEPEST)
    return slope, float(level_s - slope * centre_s)
