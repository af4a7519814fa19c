"""Where a new shot begins.

Tested by tests/pipeline/test_follow.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CUT_LEVELS = 25.0  # mean change of grey level between neighbouring frames; talking heads stay below 10


class CutFinder:
    """Finds cuts from one batch to the next by the change of a coarse grey picture."""

    def __init__(self) -> None:
        self._last: NDArray[np.float32] | None = None

    def __call__(self, pixels: NDArray[np.uint8]) -> Sequence[bool]:
        """True for each frame of `pixels` uint8 [N, H, W, 3] that begins a new shot."""
        coarse = pixels[:, :: _step(pixels.shape[1]), :: _step(pixels.shape[2])].mean(axis=3, dtype=np.float32)
        before = np.concatenate([coarse[:1] if self._last is None else self._last[None], coarse[:-1]])
        self._last = coarse[-1]
        return [bool(change > CUT_LEVELS) for change in np.abs(coarse - before).mean(axis=(1, 2))]


def _step(side_px: int) -> int:
    return max(1, side_px // 48)
