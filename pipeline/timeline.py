"""Times of frames, places of samples: the arithmetic of one clock. No files.

    decoder     |frame|frame|       |frame|fra        audio frames, each with its own PTS
    joined      |frame|frame|frame|frame|             what comes out of the resampler: no gaps
    placed  0 0 |frame|frame|0 0 0 0|frame|me|        sample n at n/16000 s from the origin

Tested by tests/pipeline/test_timeline.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
BLOCK_SAMPLES = 10 * SAMPLE_RATE_HZ
_OUT_OF_PLACE_S = 0.005
# Two recordings in one file: the clock starts anew. Less than this is jitter.
_NEW_CLOCK_S = 1.0
# Forwards too: a time this far ahead of the one before is damaged, and waiting for it would take for ever.
_LONGEST_PAUSE_S = 12 * 3600.0
_MOST_SILENCE_SAMPLES = 24 * 3600 * SAMPLE_RATE_HZ
_LONG_FRAME_S = 0.5


class Timed(Protocol):
    """What carries a time: s on the container's clock, or None, and the clock's tick."""

    @property
    def time_s(self) -> float | None:
        """Presentation time, s."""

    @property
    def tick_s(self) -> float:
        """The clock's tick, s."""


class FrameClock:
    """Frame times from the origin, strictly rising: missing, falling and absurd times are repaired, minimally."""

    def __init__(self, origin_s: float, start_s: float, step_s: float) -> None:
        self.num_repaired = 0
        self._offset_s = -origin_s
        self._first_s = start_s - origin_s
        self._step_s = step_s
        self._last_s: float | None = None

    def next(self, stamp: Timed | None) -> float:
        """Time of the next frame in s from the origin; without a time one frame step after the one before."""
        expected_s = self._first_s if self._last_s is None else self._last_s + self._step_s
        if stamp is None or stamp.time_s is None:
            self.num_repaired += 1
            self._last_s = expected_s
            return expected_s
        time_s = stamp.time_s + self._offset_s
        before_s = self._first_s if self._last_s is None else self._last_s
        if not before_s - _NEW_CLOCK_S <= time_s <= before_s + _LONGEST_PAUSE_S:
            self.num_repaired += 1
            self._offset_s += expected_s - time_s
            time_s = expected_s
        elif self._last_s is not None and time_s <= self._last_s:
            self.num_repaired += 1
            time_s = max(self._last_s + stamp.tick_s, np.nextafter(self._last_s, np.inf))
        self._last_s = float(time_s)
        return self._last_s


class Placement:
    """Puts joined 16 kHz samples where their frames' times say: zeros into gaps, overlaps dropped.

    A frame moves what follows when its time is off from the running position by more than 5 ms and the next
    frame agrees; smaller offsets are rounding, single ones are guesses of the container's reader. Places are
    whole samples: off by at most 31 µs.
    """

    def __init__(self, origin_s: float, start_s: float) -> None:
        self.joined_s = 0.0
        self.num_moves = 0
        self.position = 0
        self.spans: list[tuple[int, int]] = []
        self._shift_s = start_s - origin_s
        self._offset_s = -origin_s
        self._taken = 0
        self._silence = 0
        self._segments: deque[tuple[int, int]] = deque()
        self._asked: tuple[float, float] | None = None

    @property
    def settled(self) -> bool:
        """False while the last frame wants a move that the next one has to confirm."""
        return self._asked is None

    def add(self, time_s: float | None, duration_s: float) -> None:
        """Take in a decoded frame: its time on the container's clock and its length, s."""
        off_s = 0.0 if time_s is None else time_s + self._offset_s - self.joined_s - self._shift_s
        if not self._segments:
            self._move(0.0, off_s)
            off_s = 0.0
        elif self._asked:
            at_s, asked_s = self._asked
            if off_s * asked_s > 0 and abs(off_s) > abs(asked_s) - _OUT_OF_PLACE_S:
                off_s -= self._move(at_s, asked_s)
        self._asked = (self.joined_s, off_s) if abs(off_s) > _OUT_OF_PLACE_S else None
        if self._asked and duration_s > _LONG_FRAME_S:  # nobody can wait for the frame after it: pipes are short
            self._move(*self._asked)
            self._asked = None
        self.joined_s += duration_s

    def place(self, samples: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Yield the next samples of the clock, zeros included, for the next joined `samples` float32 [S].

        Raises ValueError where the times ask for more silence than a day has.
        """
        while len(samples):
            while len(self._segments) > 1 and self._segments[1][0] <= self._taken:
                self._segments.popleft()
            count = len(samples)
            if len(self._segments) > 1:
                count = min(count, self._segments[1][0] - self._taken)
            shift = self._segments[0][1] if self._segments else round(self._shift_s * SAMPLE_RATE_HZ)
            yield from self._put(self._taken + shift, samples[:count])
            self._taken += count
            samples = samples[count:]

    def real_spans(self) -> list[tuple[float, float]]:
        """Where there is real audio: [start, end) in s from the origin."""
        return [(start / SAMPLE_RATE_HZ, stop / SAMPLE_RATE_HZ) for start, stop in self.spans]

    def _move(self, at_s: float, by_s: float) -> float:
        """Place what is joined from `at_s` on later by `by_s`: what later frames are off less."""
        self.num_moves += bool(self._segments)
        earliest_s = -_NEW_CLOCK_S if self._segments else -_LONGEST_PAUSE_S
        if earliest_s <= by_s <= _LONGEST_PAUSE_S:
            self._shift_s += by_s
        else:
            self._offset_s -= by_s  # a new clock goes on where the old one ended
        self._segments.append((round(at_s * SAMPLE_RATE_HZ), round(self._shift_s * SAMPLE_RATE_HZ)))
        return by_s

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
