"""F1: one definition, for counts of frames (metric) and for sums of probabilities (loss).

    F1 = 2 TP / (2 TP + FP + FN)            0 where there is neither a true nor a predicted one

It is 2 · precision · recall / (precision + recall), without the divisions by 0 on the way. Macro F1 is its mean over
all classes, also over those that no frame has: the challenge's score.
Source: docs/sources.md (F1). Tested by tests/fusion/tasks/test_f1.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Array = TypeVar("Array", NDArray[np.float64], "Tensor")


def f1(hits: Array, false_alarms: Array, misses: Array) -> Array:
    """F1 of true positives, false positives and false negatives, of each class [C]; 0 where there is none of them."""
    counted = 2 * hits + false_alarms + misses
    found: Array = 2 * hits / (counted + (counted == 0))
    return found


def confusion(truth: NDArray[Any], predicted: NDArray[Any], classes: int) -> NDArray[np.float64]:
    """Frames [classes, classes] of each true class (row) and predicted class (column), of two sequences [N]."""
    cells = np.bincount(truth.astype(np.int64) * classes + predicted.astype(np.int64), minlength=classes**2)
    return cells.reshape(classes, classes).astype(np.float64)


def class_f1(frames: NDArray[np.float64]) -> NDArray[np.float64]:
    """F1 of each class, [C], of a confusion [C, C]."""
    hits = np.diagonal(frames)
    return f1(hits, frames.sum(axis=0) - hits, frames.sum(axis=1) - hits)


def soft_f1(prediction: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """1 - macro F1 of probabilities over all frames of the batch that count.

    `prediction` [B, T, C] before the softmax, `labels` [B, T, 1] numbers of classes, `mask` bool [B, T]: frames that
    do not count change neither the loss nor its gradient; without any it is 0. A true positive of a class is the
    probability that a frame of it is given, a false positive that which a frame of another class is given, a false
    negative what is missing to 1. Source: S4, equations 4-9, docs/sources.md (F1).
    """
    counts = mask.unsqueeze(-1)
    given = prediction.double().where(counts, 0.0).softmax(-1) * counts  # [B, T, C]
    true = (labels == _numbers(labels, prediction.shape[-1])) & counts
    hits = (given * true).sum((0, 1))
    loss = 1 - f1(hits, given.sum((0, 1)) - hits, true.sum((0, 1)) - hits).mean()
    return (loss * mask.any()).float()


def cross_entropy(
    prediction: Tensor, labels: Tensor, mask: Tensor, *, focal_gamma: float = 0.0, label_smoothing: float = 0.0
) -> Tensor:
    """Mean over the frames that count of the cross-entropy, by (1 - p)^gamma of the true class's p in the focal loss.

    Arguments are those of `soft_f1`; gamma is `focal_gamma`, 0 for the plain cross-entropy. With `label_smoothing` that
    share of each label is spread evenly over all classes.
    Source: Lin et al. 2017, equation 4; S4's code, docs/sources.md (F1).
    """
    counts = mask.unsqueeze(-1)
    log_p = prediction.double().where(counts, 0.0).log_softmax(-1)
    true = (labels == _numbers(labels, prediction.shape[-1])) & counts
    of_true = (log_p * true).sum(-1)
    losses = -(1 - label_smoothing) * of_true - label_smoothing * log_p.mean(-1)
    if focal_gamma:
        # Where p rounds to 1 the gradient of a power below 1 would not be finite.
        losses = losses * (1 - of_true.exp()).clamp(min=1e-12) ** focal_gamma
    return ((losses * mask).sum() / mask.sum().clamp(min=1)).float()


def _numbers(labels: Tensor, classes: int) -> Tensor:
    """0 … classes - 1, where the labels are."""
    return labels.new_tensor(range(classes))
