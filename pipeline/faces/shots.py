"""Where a new shot begins: the picture changes much, and not by light alone, and for longer than a glitch.

    frame      a a a F a a     F: as bright as you like, the same edges            no cut
    frame      a a a G a a     G: another picture, and then the one before again   no cut
    frame      a a a · b b     ·: nothing to be seen (black, white)                a cut at the first b
    frame      a a a b b b                                                         a cut at the first b

The rules and their numbers are ours. Tested by tests/pipeline/faces/test_shots.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ..media.types import FrameBatch

CUT_LEVELS = 25.0  # mean change of grey level between neighbouring frames; talking heads stay below 10
# Correlation of the edges where the picture changed: above 0.6 when the light does (on, off, a flash that burns out
# half the picture), below 0.15 between shots.
SAME_EDGES = 0.35
# Mean size of edges below which there is nothing to be compared: grain of 3 levels in each colour makes 1.9, an empty
# wall 2.2.
_BLANK_LEVELS = 2.0
# The former picture comes back this soon, or with the next frame at any rate: no shot in between, a glitch.
GLITCH_S = 0.5
# Pictures that may come back: the one before a glitch that changes with each frame, at 30 frames/s.
_REMEMBERED = round(GLITCH_S * 30) + 1


class CutFinder:
    """Compares each frame with the one before, from one batch to the next, in a coarse grey picture."""

    def __init__(self) -> None:
        self._before: deque[NDArray[np.float32]] = deque(maxlen=_REMEMBERED)  # the last of each shot, newest last
        self._other_light: NDArray[np.float32] | None = None  # this shot before its light changed: it may change back

    def __call__(self, pixels: NDArray[np.uint8]) -> list[int]:
        """For each frame of `pixels` uint8 [N, H, W, 3]: 0 the same shot, 1 a new one, -n the one before n changes."""
        down, across = (max(1, side_px // 48) for side_px in pixels.shape[1:3])
        changes = [0] * len(pixels)
        for row, picture in enumerate(pixels[:, ::down, ::across].mean(axis=3, dtype=np.float32)):
            if not self._before:
                self._before.append(picture)
                continue
            last, other = self._before[-1], self._other_light
            if _much_changed(last, picture):
                edges = [np.abs(np.diff(picture, axis=axis)) for axis in (0, 1)]
                if np.mean([each.mean() if each.size else 0.0 for each in edges]) < _BLANK_LEVELS:
                    continue  # what comes after it is compared with what was before
                light = _same_edges(last, picture) or (
                    other is not None and (not _much_changed(other, picture) or _same_edges(other, picture))
                )
                undone = 0
                for count, former in enumerate(list(self._before)[-2::-1], start=1):
                    if not _much_changed(former, picture) or (not light and _same_edges(former, picture)):
                        undone = count
                        break
                for _ in range(undone):
                    self._before.pop()
                if undone:
                    changes[row] = -undone
                elif not light:
                    self._before.append(picture)
                    changes[row] = 1
                self._other_light = last if light and not undone else None
            self._before[-1] = picture
        return changes


def with_cuts(batches: Iterable[FrameBatch]) -> Iterator[tuple[FrameBatch, list[bool]]]:
    """Each batch, and for each of its frames whether it begins a new shot.

    A batch with a change near its end waits for the next one, which shows whether it was a glitch; no more than one.
    """
    find, held = CutFinder(), None
    for batch in batches:
        changes = find(batch.pixels)
        if held is not None:
            former, earlier = held
            together = without_glitches(np.concatenate([former.time_s, batch.time_s]), [*earlier, *changes])
            changes = together[len(earlier) :]
            yield former, [bool(each) for each in together[: len(earlier)]]
        changes, held = without_glitches(batch.time_s, changes), None
        last = max((row for row, change in enumerate(changes) if change), default=None)
        if last is not None and (last == len(changes) - 1 or batch.time_s[-1] - batch.time_s[last] < GLITCH_S):
            held = batch, changes
        else:
            yield batch, [bool(each) for each in changes]
    if held is not None:
        yield held[0], [bool(each) for each in held[1]]


def without_glitches(time_s: NDArray[np.float64], changes: list[int]) -> list[int]:
    """The changes of `CutFinder` at `time_s` [N] without those that are undone at once, and without their undoing."""
    left = list(changes)
    for row, change in enumerate(changes):
        if change >= 0:
            continue
        begun = [at for at in range(row) if left[at]][change:]
        if len(begun) == -change and (row - begun[0] == 1 or time_s[row] - time_s[begun[0]] <= GLITCH_S):
            left[begun[0] : row + 1] = [0] * (row + 1 - begun[0])
    return left


def _much_changed(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    return bool(np.abs(one - other).mean() > CUT_LEVELS)


def _same_edges(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """Whether what changed has the same edges still; what did not (a black border, a logo) has no say."""
    changed = np.abs(one - other) > CUT_LEVELS / 2
    shared, power = 0.0, np.zeros(2)
    for axis in (0, 1):
        first, second = np.diff(one, axis=axis), np.diff(other, axis=axis)
        both = changed[1:] & changed[:-1] if axis == 0 else changed[:, 1:] & changed[:, :-1]
        shared += float(first[both] @ second[both])
        power += np.square([first[both], second[both]]).sum(axis=1)
    return bool(shared > SAME_EDGES * np.sqrt(power.prod()))
