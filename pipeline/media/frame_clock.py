"""Times of frames: the picture's clock, and the one clock of recordings that were joined. No files.

    stamps    0.00  0.04  3.08  0.12  0.12  –     0.24        ahead, twice the same, missing
    times     0.00  0.04  0.08  0.12  0.16  0.20  0.24        strictly rising; good ones stay as they are

Tested by tests/pipeline/media/test_frame_clock.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .types import Part

# A clock that falls by more has started anew; parts of a joined recording are longer, jitter is smaller.
NEW_CLOCK_S = 0.5
# Forwards too: a time this far ahead of the one before is damaged, and waiting for it would take for ever.
LONGEST_PAUSE_S = 12 * 3600.0
# So many frames that follow one decide whether it is the one that is out of place: with it they are six, of which
# three may be damaged. As many rows wait.
FRAMES_AHEAD = 5


@dataclass
class PartClock:
    """Puts the times of one stream of a joined recording on one clock: all streams of a part move by one amount.

    `parts`: the one that the stream is in, and those to come; none where nothing was joined. `joined`: the newest time
    was the first of a new part; `num_joins`: how often the recording's clock started anew.
    """

    parts: deque[Part]
    before_s: float | None = None
    num_joins: int = 0
    joined: bool = False

    def on_one_clock(self, time_s: float | None) -> float | None:
        """The time of the stream's next frame on the one clock, s; what is unknown stays so."""
        self.joined = False
        if time_s is None or not self.parts:
            return time_s
        if len(self.parts) > 1 and self.before_s is not None:
            part, after = self.parts[0], self.parts[1]
            jumps = not -NEW_CLOCK_S / 2 <= time_s - self.before_s <= LONGEST_PAUSE_S
            fits = after.first_s - NEW_CLOCK_S / 2 <= time_s <= after.last_s + NEW_CLOCK_S / 2
            # An outlier of this part is far from the start of the next, or this part is far from its end.
            near_start = time_s - after.first_s <= NEW_CLOCK_S or self.before_s > part.last_s - NEW_CLOCK_S
            if jumps and fits and near_start:
                self.parts.popleft()
                self.joined = True
                self.num_joins += 1
        self.before_s = time_s
        return time_s + self.parts[0].offset_s


class FrameClock:
    """Frame times from the origin, strictly rising: missing, falling and absurd times are repaired, minimally.

    A time that is out of line with the frames around it is put between its neighbours. The next few frames decide
    which one is out of line, so some rows wait for them.
    """

    def __init__(self, origin_s: float, start_s: float, step_s: float, parts: Sequence[Part] = ()) -> None:
        self.num_repaired = 0
        self.parts = PartClock(deque(parts))
        self._offset_s = -origin_s
        self._first_s = start_s - origin_s
        self._step_s = step_s
        self._last_s: float | None = None
        self._waiting: deque[tuple[float | None, float]] = deque()

    def add(self, time_s: float | None, tick_s: float = 0.0) -> None:
        """Take in the next frame: its time on the container's clock (None: unknown) and that clock's tick, s."""
        self._waiting.append((self.parts.on_one_clock(time_s), tick_s))

    def settled(self, ended: bool) -> list[float]:
        """Times of the next frames, in s from the origin, as far as they are known; all when the stream has `ended`."""
        times: list[float] = []
        while self._waiting:
            given_s = self._waiting[0][0]
            # A frame a step or so after the one before is right whatever follows.
            if (
                given_s is not None
                and self._last_s is not None
                and 0 < given_s + self._offset_s - self._last_s < 1.5 * self._step_s
            ):
                self._waiting.popleft()
                self._last_s = float(given_s + self._offset_s)
            elif ended or len(self._waiting) > FRAMES_AHEAD:
                self._last_s = self._next()
            else:
                break
            times.append(self._last_s)
        return times

    def _next(self) -> float:
        """The next frame's time, with the frames after it as witnesses."""
        given_s, tick_s = self._waiting.popleft()
        following = [each + self._offset_s for each, _ in self._waiting if each is not None][:FRAMES_AHEAD]
        before_s = self._first_s if self._last_s is None else self._last_s
        expected_s = before_s if self._last_s is None else before_s + self._step_s
        time_s = None if given_s is None else given_s + self._offset_s
        if time_s is not None:
            # Are this frame and most of the next ones on a clock that starts anew, or years ahead? The later ones
            # are so many steps further on in either case.
            low_s = before_s - (2 * NEW_CLOCK_S if self._last_s is None else NEW_CLOCK_S)
            level_s = [each - steps * self._step_s for steps, each in enumerate((time_s, *following))]
            elsewhere = [not low_s <= each <= before_s + LONGEST_PAUSE_S for each in level_s]
            if elsewhere[0] and (len(elsewhere) == 1 or 2 * sum(elsewhere) > len(elsewhere)):
                self._offset_s += expected_s - time_s
                self.num_repaired += 1
                return expected_s
        if time_s is None or (self._last_s is not None and time_s <= before_s):
            out_of_line = True
        else:
            against = [each for each in following if each <= time_s and (each > before_s or self._last_s is None)]
            if not against:
                out_of_line = time_s > before_s + LONGEST_PAUSE_S
            elif len(against) == 1:  # it or the other one: who is further from where it should be
                off_s = abs(against[0] - expected_s - self._step_s)
                out_of_line = abs(time_s - expected_s) > off_s + self._step_s
            else:
                out_of_line = True
        if time_s is None or out_of_line:
            self.num_repaired += 1
            time_s = self._between(before_s, expected_s, tick_s)
        return float(time_s)

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
