"""Mean and standard deviation of features, from moments that are kept trial by trial.

So each fold's statistics come from its training trials alone, and nothing is read twice. Source: references 1.8
(validation data is not normalised by its own, as the field's code does it). Tested by tests/fusion/test_statistics.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .config import StatisticsKind

_SMALLEST_STD = 1e-8


@dataclass(frozen=True)
class Moments:
    """Of `count` rows: their mean [D] and the sum of squared distances from it [D], float64."""

    count: int
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation [D] of one modality; all D alike where they are scalar."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]


def moments_of(rows: Tensor) -> Moments:
    """Moments of rows float32 [N, D]."""
    if not len(rows):
        return Moments(0, np.zeros(rows.shape[1]), np.zeros(rows.shape[1]))
    variance, mean = torch.var_mean(rows, dim=0, correction=0)
    return Moments(len(rows), mean.double().cpu().numpy(), variance.double().cpu().numpy() * len(rows))


def together(parts: Iterable[Moments]) -> Moments:
    """Moments of all rows of the parts. Source: Chan, Golub, LeVeque 1979. Raises TypeError without parts."""
    return reduce(_two_together, parts)


def statistics_of(moments: Moments, kind: StatisticsKind) -> Statistics:
    """Statistics over `moments`: one number for all of a modality (`scalar`), or one a dimension (`feature`).

    A dimension that never changes, and a modality without a row, get the standard deviation 1.
    """
    mean, variance = moments.mean, moments.spread / max(moments.count, 1)
    if kind == "scalar":
        variance = np.full_like(variance, variance.mean() + mean.var())
        mean = np.full_like(mean, mean.mean())
    std = np.sqrt(variance)
    return Statistics(mean, np.where(std > _SMALLEST_STD, std, 1.0))


def as_json(statistics: Mapping[str, Statistics]) -> dict[str, Any]:
    """{modality: {mean, std}}: one number each where all dimensions are alike, else a list."""
    return {
        name: {"mean": _short(s.mean), "std": _short(s.std), "width": len(s.mean)} for name, s in statistics.items()
    }


def from_json(found: Mapping[str, Any]) -> dict[str, Statistics]:
    """Statistics out of statistics.json."""
    return {
        name: Statistics(*(np.broadcast_to(np.float64(each[key]), (each["width"],)) for key in ("mean", "std")))
        for name, each in found.items()
    }


def _two_together(a: Moments, b: Moments) -> Moments:
    count = a.count + b.count
    if not a.count or not b.count:
        return a if a.count else b
    step = b.mean - a.mean
    spread = a.spread + b.spread + step**2 * (a.count * b.count / count)
    return Moments(count, a.mean + step * (b.count / count), spread)


def _short(values: NDArray[np.float64]) -> float | list[float]:
    return float(values[0]) if np.all(values == values[0]) else values.tolist()
