"""Area averages of rectangles of many frames at once: what MTCNN's pyramid and its crops are made of.

    frames uint8 ── sums over rows and columns, once ──► integral images
    any rectangle cut into bins: mean of a bin = (D − B − C + A) / area     A ┬───┬ B
                                                                             │bin│
                                                                           C ┴───┴ D
Bins are those of `adaptive_avg_pool2d`, which facenet-pytorch resizes with: bin i of n over a length L covers
[⌊i·L/n⌋, ⌈(i+1)·L/n⌉). Sums are whole numbers, so nothing is lost. Source: docs/sources.md (MTCNN).
Tested by tests/parity/test_mtcnn.py.
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


class IntegralImages:
    """Integral images of the rectangle from (left, top) of frames uint8 [N, h, w, 3], on one device.

    Positions are px of the whole frame. Sums may wrap round at 2^32, differences of them do not.
    """

    def __init__(self, pixels: NDArray[np.uint8], device: torch.device, left: int = 0, top: int = 0) -> None:
        self._left, self._top = left, top
        # Sums [N, h + 1, w + 1, 3] over all pixels above and to the left.
        count, height, width, _ = pixels.shape
        if device.type == "cpu":  # NumPy takes half of torch's time
            table = np.zeros((count, height + 1, width + 1, 3), np.int32)
            rows = pixels.astype(np.int32)
            np.add.accumulate(rows, axis=1, out=rows)
            np.add.accumulate(rows, axis=2, out=table[:, 1:, 1:])
            self._sums = torch.from_numpy(table)
        else:
            moved = torch.from_numpy(np.ascontiguousarray(pixels)).to(device)
            self._sums = torch.zeros(count, height + 1, width + 1, 3, dtype=torch.int32, device=device)
            self._sums[:, 1:, 1:] = moved.cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32)

    def grid(self, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]) -> Tensor:
        """Means [N, 3, R, C] of the bins [from, to) of rows (two int64 [R]) by those of columns (two [C])."""
        (above, below), (before, after) = rows, columns
        bands = self._sums.index_select(1, below - self._top) - self._sums.index_select(1, above - self._top)
        sums = bands.index_select(2, after - self._left) - bands.index_select(2, before - self._left)
        areas = (below - above)[:, None] * (after - before)
        return (sums / areas[..., None]).permute(0, 3, 1, 2)

    def crops(self, frames: Tensor, corners: Tensor, side_px: int) -> tuple[Tensor, Tensor]:
        """Means [K, 3, side, side] of those of the boxes that lie in the rectangle and are not empty; and which do.

        `corners` int64 [B, 4]: left, top, right, bottom, half-open, of box b in frame `frames[b]`; which: bool [B].
        """
        _, height, width, _ = self._sums.shape
        low = corners[:, :2] >= torch.tensor([self._left, self._top], device=corners.device)
        edge = torch.tensor([self._left + width - 1, self._top + height - 1], device=corners.device)
        contained = (low & (corners[:, 2:] <= edge) & (corners[:, 2:] > corners[:, :2])).all(dim=1)
        frames, corners = frames[contained], corners[contained]
        (left, right), (top, bottom) = (bins(corners[:, at], corners[:, at + 2], side_px) for at in (0, 1))
        flat = self._sums.view(-1, 3)
        first = frames * height - self._top
        above, below = ((first[:, None] + edge) * width - self._left for edge in (top, bottom))
        corner = [
            flat.index_select(0, (row[:, :, None] + column[:, None, :]).flatten())
            for row in (above, below)
            for column in (left, right)
        ]
        sums = (corner[3] - corner[2] - corner[1] + corner[0]).view(-1, side_px, side_px, 3)
        areas = (bottom - top)[:, :, None] * (right - left)[:, None, :]
        return (sums / areas[..., None]).permute(0, 3, 1, 2), contained


def bins(start: Tensor, stop: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Where `count` bins over [start, stop) (int64 [K]) begin and end: two int64 [K, count]."""
    number = torch.arange(count, device=start.device)
    length = (stop - start)[:, None]
    low = number * length // count
    high = -(-(number + 1) * length // count)
    return start[:, None] + low, start[:, None] + high


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


@dataclass(frozen=True)
class Level:
    """One axis of one level of the pyramid: its bins [from, to) in px of the frame, and P-Net's first cell.

    `bins`: where each of the N begins and ends, two int64 [N].
    """

    bins: tuple[Tensor, Tensor]
    first_cell: int


def level_of(side_px: int, start: int, stop: int, scale: float, device: torch.device) -> Level | None:
    """The part of an axis of `side_px` that lies in [start, stop), on P-Net's own grid; None without a whole cell.

    `scale`: px of the level for one of the frame, as `pyramid` gives it.
    """
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
