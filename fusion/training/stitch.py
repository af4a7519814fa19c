"""Predictions of overlapping windows to one row per frame: the mean of all windows that cover it.

Source: docs/sources.md (Windows). Tested by tests/fusion/training/test_stitch.py.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...encoders.contract import Precision
from ..data.batches import Batch, Batches
from ..data.dataset import Dataset
from ..data.runtime import autocast
from ..data.windows import Windows
from ..models.table import Output
from ..tasks.task import Task


def predict(
    model: nn.Module, data: Dataset, batches: Batches, windows: Windows, task: Task, precision: Precision
) -> NDArray[np.float32]:
    """Predictions of the table's rows [N, C], in the task's limits; rows outside of `windows` are 0.

    Of classes and flags probabilities are averaged, not what the network gives. Raises ValueError if one is not a
    number.
    """
    device = data.labels.device
    # Padding adds to the row past the table's end, which is dropped.
    total = torch.zeros(len(data.labels), len(task.columns), device=device)
    count = torch.zeros(len(data.labels), 1, device=device)
    model.eval()
    with torch.inference_mode(), autocast(device, precision):
        for batch in batches.all(windows):
            prediction = predict_batch(model, batch, task)
            index = batch.index.flatten()
            total.index_add_(0, index, prediction.flatten(0, 1))
            count.index_add_(0, index, torch.ones(len(index), 1, device=device))
    mean = (total / count.clamp(min=1))[:-1]
    rows: NDArray[np.float32] = mean.clamp(*task.limits).cpu().numpy()
    if not np.isfinite(rows).all():
        raise ValueError(
            "the network predicts values that are not numbers: try a smaller lr, grad_clip=1 or --precision fp32"
        )
    return rows


def predict_batch(model: nn.Module, batch: Batch, task: Task) -> Tensor:
    """Predictions float32 [B, W, C] of a batch: of classes and flags probabilities."""
    found = model(batch.features, batch.valid, batch.mask)
    prediction: Tensor = (found.prediction if isinstance(found, Output) else found).float()
    if task.activation == "none":
        return prediction
    return prediction.softmax(-1) if task.activation == "softmax" else prediction.sigmoid()


def by_trial(data: Dataset, trials: Iterable[str], rows: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Each trial's rows [T, C] of a table's."""
    spans = ((name, *data.spans[name]) for name in trials)
    return {name: rows[first : first + count] for name, first, count in spans}


def valid_by_trial(data: Dataset, trials: Iterable[str]) -> dict[str, NDArray[np.bool_]]:
    """Of each trial which rows [T] have a feature that was computed from real media."""
    real = torch.stack(data.valid).any(0).cpu().numpy()
    return {name: real[first : first + count] for name, first, count in ((name, *data.spans[name]) for name in trials)}
