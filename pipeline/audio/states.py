"""Sound in overlapping windows to an encoder's states, and states to rows: one mean a frame, streaming. No files.

    window 0   ├─────── kept ───────┤ context │
    window 1             │ context ├───── kept ─────┤ context │          kept stretches abut exactly
    window 2                                │ context ├── kept ──┤       the last one ends with the sound
    states     .  .  .  .  .  .  .  .  .  .  .  .  .  .  .  .  .  .       one grid: windows begin on its multiples
    rows       │t0   │t1   │t2   │t3                                      mean of the states centred in [t, t + Δt)

Windows are of one length but for the last, and none is padded. Source: docs/sources.md (Audio states).
Tested by tests/pipeline/audio/test_states.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...encoders.contract import FIELD_S
from ..media.types import SAMPLE_RATE_HZ
from .framing import Spans, lie_on

# Times in containers are rounded: a state centred on a frame's time is that frame's, and not the one's before.
_SAME_TIME_S = 1e-6
_STATES_AT_ONCE = 4096  # of which something is looked up: an hour has 180,000
_LONE_FRAME_S = 1 / 30  # how long the only frame of a video is seen
# As transformers' `zero_mean_unit_var_norm` has it; below this the sound is silence, and rows of it are rounding.
_LEAST_VARIANCE = 1e-7


@dataclass(frozen=True)
class Window:
    """Samples [start, stop) for an encoder; of its states, the first of which is number `origin` of the grid, it
    gives [first, end) of the grid, or with `end` None all from `first` on.
    """

    start: int
    stop: int
    origin: int
    first: int
    end: int | None


@dataclass(frozen=True)
class StateGrid:
    """Where an encoder's states lie: one every `hop_s`, centred `first_s` after a window's start and so on.

    `window_s`: how much is kept of a window, with `context_s` more at either end of it, which only helps the states
    between; `field_s`: how much of the sound around its centre a state is made from. Raises ValueError for what is
    not a length of time, and for a window without a state.
    """

    rate_hz: int
    window_s: float
    context_s: float
    hop_s: float
    first_s: float
    field_s: float = FIELD_S

    def __post_init__(self) -> None:
        known = all(map(math.isfinite, (self.window_s, self.context_s, self.hop_s, self.first_s, self.field_s)))
        if (
            not known
            or self.rate_hz < 1
            or self.hop_s <= 0
            or self.field_s <= 0
            or min(self.context_s, self.first_s) < 0
        ):
            raise ValueError(f"an encoder's times are finite, and its hop, field and rate above 0, got {self}")
        if self.hop_s * self.rate_hz < 1:
            raise ValueError(f"a hop of {self.hop_s} s is less than a sample at {self.rate_hz} Hz")
        if self.stride_states < 1:
            raise ValueError(f"a window of {self.window_s} s has no state, with a hop of {self.hop_s} s")

    @property
    def stride_states(self) -> int:
        """States from one window's first to the next one's: as many as lie between the contexts."""
        return math.floor(self.window_s / self.hop_s + 1e-6)

    def centres_s(self, first: int, stop: int) -> NDArray[np.float64]:
        """Where states [first, stop) of the grid are centred, float64 [stop - first]: s from time 0."""
        return np.asarray(self.first_s + self.hop_s * np.arange(first, stop), np.float64)

    def windows(self, num_samples: int) -> Iterator[Window]:
        """The windows of a sound; none where it is shorter than what one state is made from.

        The first one is kept from its start on and the last one up to its end: a sound that fits in a window is one.
        """
        most = round((self.window_s + 2 * self.context_s) * self.rate_hz)
        field = round(self.field_s * self.rate_hz)
        context = math.ceil(self.context_s / self.hop_s - 1e-6)
        origin = start = 0
        while num_samples - start >= field:
            next_start = round((origin + self.stride_states) * self.hop_s * self.rate_hz)
            is_last = start + most >= num_samples or num_samples - next_start < field
            first = origin + context if origin else 0
            end = None if is_last else origin + self.stride_states + context
            yield Window(start, min(start + most, num_samples), origin, first, end)
            if is_last:
                return
            origin, start = origin + self.stride_states, next_start

    def kept(self, window: Window, states: NDArray[np.float32], num_samples: int) -> NDArray[np.float32]:
        """Of a window's states [K, D] those that count; none is centred past the sound's end.

        Raises ValueError where there are fewer than the window must give.
        """
        end = window.end
        if end is None:
            num_within = math.ceil((num_samples / self.rate_hz - self.first_s) / self.hop_s - 1e-6)
            end = max(window.first, min(window.origin + len(states), num_within))
        if len(states) < end - window.origin:
            length_s = (window.stop - window.start) / self.rate_hz
            raise ValueError(
                f"gave {len(states)} states for {length_s:g} s of sound, and with a hop of {self.hop_s} s at least "
                f"{end - window.origin} are needed"
            )
        return states[window.first - window.origin : end - window.origin]

    def of_rows(self, time_s: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First state of each row's, and the one after its last: those centred in [t, t + Δt), else the nearest.

        `time_s` [T] rises; Δt is the time to the next row, the last one's that of the row before. The nearest is that
        to the middle, of two the earlier. Neither of the two falls, and neither knows where the sound ends.
        """
        steps_s = np.diff(time_s)
        last_s = steps_s[-1:] if len(steps_s) else np.full(min(len(time_s), 1), _LONE_FRAME_S)
        edges_s = np.concatenate([time_s, time_s[-1:] + last_s])
        edges = np.ceil((edges_s - self.first_s - _SAME_TIME_S) / self.hop_s).astype(np.int64).clip(min=0)
        first, stop = edges[:-1].copy(), edges[1:].copy()
        lone = first == stop
        middle_s = (edges_s[:-1] + edges_s[1:])[lone] / 2
        first[lone] = np.ceil((middle_s - self.first_s) / self.hop_s - 0.5 - 1e-6).astype(np.int64).clip(min=0)
        stop[lone] = first[lone] + 1
        return first, stop

    def valid(self, time_s: NDArray[np.float64], num_states: int, real_spans: Spans) -> NDArray[np.bool_]:
        """True [T] where all states of a row are there, each made from real sound; spans in s from time 0.

        A nearest state counts where the middle of the row is within half a hop of it, or within its field.
        """
        first, stop = self.of_rows(time_s)
        real = np.zeros(num_states + 1, np.int32)
        for at in range(0, num_states, _STATES_AT_ONCE):
            centres_s = self.centres_s(at, min(at + _STATES_AT_ONCE, num_states))
            starts = np.rint((centres_s - self.field_s / 2).clip(min=0) * SAMPLE_RATE_HZ).astype(np.int64)
            real[1 + at : 1 + at + len(starts)] = lie_on(real_spans, starts, round(self.field_s * SAMPLE_RATE_HZ))
        num_real = np.cumsum(real, dtype=np.int32)
        there = np.minimum(stop, num_states)
        valid: NDArray[np.bool_] = (first < there) & (
            num_real[there] - num_real[np.minimum(first, there)] == there - first
        )
        if len(time_s):
            steps_s = np.diff(
                time_s, append=time_s[-1] + (time_s[-1] - time_s[-2] if len(time_s) > 1 else _LONE_FRAME_S)
            )
            off_s = np.abs(time_s + steps_s / 2 - (self.first_s + self.hop_s * first))
            near_s = np.maximum(steps_s, max(self.hop_s, self.field_s)) / 2 + _SAME_TIME_S
            valid &= (stop - first > 1) | (off_s <= near_s)
        return valid


def level(blocks: Iterable[NDArray[np.float32]], real_spans: Spans, rate_hz: int) -> tuple[float, float]:
    """Mean and standard deviation of a whole sound, of its real samples alone, for encoders that want it level.

    `blocks` float32 [S] hold zeros where sound is not real; `real_spans`: (start, end) in s. The deviation is
    √(variance + 1e-7), as in transformers' `zero_mean_unit_var_norm`; one of digital silence is below 4.5e-4:
    `is_silence`.
    """
    total = power = 0.0
    for block in blocks:
        samples = block.astype(np.float64)
        total += float(samples.sum())
        power += float(np.vdot(samples, samples))
    count = max(1.0, sum(stop - start for start, stop in real_spans) * rate_hz)
    variance = max(0.0, power / count - (total / count) ** 2)
    return total / count, math.sqrt(variance + _LEAST_VARIANCE)


def is_silence(deviation: float) -> bool:
    """Whether a sound of this `deviation`, as `level` gives it, is digital silence: no louder than what is added."""
    return deviation**2 < 2 * _LEAST_VARIANCE


def state_rows(
    pieces: Iterable[NDArray[np.float32]], first: NDArray[np.int64], stop: NDArray[np.int64]
) -> Iterator[NDArray[np.float32]]:
    """Yield the rows, float32 [N, D], of states that arrive in `pieces` [n, D], the next ones of the grid each time.

    Row i is the mean of states [first[i], stop[i]), of those that there are. Rows whose first state is past the last
    one are not delivered: the caller repeats the last row. Nothing of `pieces` is kept but the last row's sum.
    """
    row = begin = 0
    total: NDArray[np.float64] | None = None
    for states in pieces:
        end, ready = begin + len(states), []
        while row < len(first) and first[row] < end:
            part = states[max(first[row] - begin, 0) : stop[row] - begin].sum(axis=0, dtype=np.float64)
            total = part if total is None else total + part
            if stop[row] > end:
                break
            ready.append(total / (stop[row] - first[row]))
            total, row = None, row + 1
        if ready:
            yield np.stack(ready).astype(np.float32)
        begin = end
    if total is not None:
        yield (total / (begin - first[row])).astype(np.float32)[None]
