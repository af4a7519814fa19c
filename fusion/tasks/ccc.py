"""The concordance correlation coefficient: one definition, for NumPy arrays (metric) and torch tensors (loss).

    CCC = 2 cov / (var_x + var_y + (mean_x - mean_y)²)            biased moments everywhere

Source: Lin 1989, eq. 1; docs/sources.md (CCC). Tested by tests/fusion/tasks/test_ccc.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from torch import Tensor

Array = TypeVar("Array", NDArray[np.float64], "Tensor")


def ccc(x: ArrayLike, y: ArrayLike, valid: ArrayLike | None = None) -> float:
    """CCC of two sequences [T] over their valid frames, in float64; 0 if it is not defined.

    `valid` bool [T]: frames that count (default: all). Constants, and fewer than two frames, give 0, never NaN.
    Raises ValueError if the shapes differ.
    """
    first, second = np.asarray(x, np.float64), np.asarray(y, np.float64)
    mask = np.ones(first.shape, np.bool_) if valid is None else np.asarray(valid, np.bool_)
    if first.ndim != 1 or not first.shape == second.shape == mask.shape:
        raise ValueError(f"a CCC needs sequences of one length, got {first.shape}, {second.shape}, {mask.shape}")
    first, second = first[mask], second[mask]
    if len(first) < 2 or np.all(first == first[0]) or np.all(second == second[0]):
        return 0.0
    # A common scale (a power of 2) and shift change nothing but keep differences and squares within float64's range.
    _, exponent = np.frexp(max(np.abs(first).max(), np.abs(second).max()))
    first, second = np.ldexp(first, -exponent), np.ldexp(second, -exponent)
    return float(_concordance(first - first[0], second - first[0], np.ones(len(first)), np.float64(len(first))))


def ccc_loss(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Sum over the tasks of 1 - CCC, each window by itself, then the mean over the windows.

    `prediction`, `target` [B, T, C]; `valid` bool [B, T]. Frames that are not valid change neither the loss nor
    its gradient; windows with fewer than two valid frames are left out. Moments are taken in float64, in which the
    mean of equal float32 numbers is that number: constants have no rounding noise to correlate. Source:
    docs/sources.md (CCC).
    """
    weight = valid.double().unsqueeze(1)  # [B, 1, T]
    x, y = (values.double().where(valid.unsqueeze(-1), 0.0).transpose(1, 2) for values in (prediction, target))
    count = weight.sum(-1)  # [B, 1]
    loss = (1 - _concordance(x, y, weight, count.clamp(min=1))).sum(-1)  # [B]
    used = (count.squeeze(-1) >= 2).to(loss.dtype)
    return ((loss * used).sum() / used.sum().clamp(min=1)).float()


def _concordance(x: Array, y: Array, weight: Array, count: Array) -> Array:
    """CCC along the last axis of values that are 0 where their weight is 0; 0 where both are one constant."""
    mean_x, mean_y = x.sum(-1) / count, y.sum(-1) / count
    dx, dy = (x - mean_x[..., None]) * weight, (y - mean_y[..., None]) * weight
    covariance = (dx * dy).sum(-1) / count
    denominator = ((dx * dx).sum(-1) + (dy * dy).sum(-1)) / count + (mean_x - mean_y) ** 2
    defined = denominator > 0
    concordance: Array = 2 * covariance * defined / (denominator + ~defined)
    return concordance
