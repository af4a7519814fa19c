"""MTCNN's pyramid of pictures, and which part of it shows a part of the frame.

    frame of 640 px   ├────────────────────────────────┤
    level of 385 bins ├─┬─┬─┬─┬─┬─┬─┬─┬─┬─┬─┬─┬─┬─┬─┬─┤   bins of the whole frame, whatever part is looked at,
    P-Net's cells     └──12──┘   one every 2 bins          so that a cell sees the same there as in the whole

Source: facenet-pytorch 2.5.3, `detect_face`. Tested by tests/parity/test_mtcnn.py and tests/pipeline/test_search.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MIN_FACE_PX = 20
PYRAMID_FACTOR = 0.709
CELL_PX = 12  # P-Net's field of view
STRIDE_PX = 2


@dataclass(frozen=True)
class Area:
    """Where to look for faces of which size: a rectangle [left, right) × [top, bottom) px, scales of the pyramid."""

    left: int
    top: int
    right: int
    bottom: int
    scales: tuple[float, ...]


def pyramid(short_side_px: int, smallest_px: float = MIN_FACE_PX, largest_px: float = np.inf) -> tuple[float, ...]:
    """Scales of the pyramid, from the smallest face wanted to the whole frame; none for a tiny frame.

    Bounds pick those scales whose candidates' boxes have such sides.
    """
    scale = CELL_PX / MIN_FACE_PX
    side = short_side_px * scale
    scales = []
    while side >= CELL_PX:
        scales.append(scale)
        scale *= PYRAMID_FACTOR
        side *= PYRAMID_FACTOR
    return tuple(scale for scale in scales if smallest_px <= CELL_PX / scale <= largest_px)


def size_px(frames: NDArray[np.uint8]) -> tuple[int, int]:
    """Width and height of frames [N, H, W, 3]."""
    return frames.shape[2], frames.shape[1]


@dataclass(frozen=True)
class Level:
    """One axis of one level of the pyramid: its bins [from, to) in px of the frame, and P-Net's first cell."""

    bins: tuple[Tensor, Tensor]
    first_cell: int


def level_of(side_px: int, start: int, stop: int, scale: float, device: torch.device) -> Level | None:
    """The part of an axis of `side_px` that lies in [start, stop), on P-Net's own grid; None without a whole cell."""
    count = int(side_px * scale + 1)
    low = torch.arange(count, device=device) * side_px // count
    high = -(-(torch.arange(count, device=device) + 1) * side_px // count)
    whole = ((low >= start) & (high <= stop)).nonzero().flatten()
    if not len(whole):
        return None
    first, last = int(whole[0]), int(whole[-1]) + 1
    first += first % STRIDE_PX
    # A cell at the right edge pools over what is there: only at the frame's own edge is that the same.
    last -= (last - first) % STRIDE_PX if last < count else 0
    if last - first < CELL_PX:
        return None
    return Level((low[first:last], high[first:last]), first // STRIDE_PX)
