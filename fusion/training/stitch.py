"""Predictions of overlapping windows to one row a frame: the mean of all windows that cover it.

Source: docs/sources.md (Windows). Tested by tests/fusion/training/test_stitch.py.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..config import Precision
from ..data.batches import Batches
from ..data.dataset import Dataset
from ..data.runtime import autocast
from ..data.windows import Windows


class Stitcher:
    """Collects windows' predictions for a table of N rows (and the row past its end, which is dropped)."""

    def __init__(self, rows: int, columns: int, device: torch.device) -> None:
        self._total = torch.zeros(rows + 1, columns, device=device)
        self._count = torch.zeros(rows + 1, 1, device=device)

    def add(self, index: Tensor, prediction: Tensor) -> None:
        """Add windows: table rows int64 [B, W] of predictions [B, W, C]."""
        rows = index.flatten()
        self._total.index_add_(0, rows, prediction.float().flatten(0, 1))
        self._count.index_add_(0, rows, torch.ones(len(rows), 1, device=rows.device))

    def mean(self) -> Tensor:
        """Mean prediction of every row [N, C]; 0 where no window was."""
        return (self._total / self._count.clamp(min=1))[:-1]


def predict(
    model: nn.Module, data: Dataset, batches: Batches, windows: Windows, columns: int, precision: Precision
) -> NDArray[np.float32]:
    """Predictions of the table's rows [N, C], clipped to [-1, 1]; rows outside of `windows` are 0.

    Raises ValueError where one is not a number.
    """
    device = data.labels.device
    stitcher = Stitcher(len(data.labels) - 1, columns, device)
    model.eval()
    with torch.inference_mode(), autocast(device, precision):
        for batch in batches.all(windows):
            stitcher.add(batch.index, model(batch.features, batch.valid, batch.mask))
    rows: NDArray[np.float32] = stitcher.mean().clamp(-1, 1).cpu().numpy()
    if not np.isfinite(rows).all():
        raise ValueError(
            "the network predicts values that are not numbers: try a smaller lr, grad_clip=1 or --precision fp32"
        )
    return rows


def by_trial(data: Dataset, trials: Iterable[str], rows: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Each trial's rows [T, C] of a table's."""
    spans = ((name, *data.spans[name]) for name in trials)
    return {name: rows[first : first + count] for name, first, count in spans}


def valid_by_trial(data: Dataset, trials: Iterable[str]) -> dict[str, NDArray[np.bool_]]:
    """Of each trial which rows [T] have a feature that was computed from real media."""
    real = torch.stack(data.valid).any(0).cpu().numpy()
    return {name: real[first : first + count] for name, first, count in ((name, *data.spans[name]) for name in trials)}
