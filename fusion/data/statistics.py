"""Mean and standard deviation of features, from moments that are kept trial by trial.

So each fold's statistics come from its training trials alone, and nothing is read twice. Unlike in the field's
code, validation data is not normalised by its own: docs/sources.md (Statistics).
Tested by tests/fusion/data/test_statistics.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import StatisticsKind

# What varies by less than float32 has digits for cannot be standardised in it.
_SMALLEST_STD = float(np.finfo(np.float32).tiny)
# Sums of squares below this have lost digits in float32, or are 0 although something changes.
_SMALLEST_SPREAD = 1e-30
_BLOCK_ROWS = 128


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


def moments_of(rows: NDArray[np.float32]) -> Moments:
    """Moments of rows [N, D], by blocks that stay in the processor's cache (three times as fast as var_mean)."""
    blocks = [_block_moments(rows[start : start + _BLOCK_ROWS]) for start in range(0, len(rows), _BLOCK_ROWS)]
    return together(blocks) if blocks else Moments(0, np.zeros(rows.shape[1]), np.zeros(rows.shape[1]))


def together(parts: Iterable[Moments]) -> Moments:
    """Moments of all rows of the parts. Source: Chan, Golub, LeVeque 1979. Raises TypeError without parts."""
    return reduce(_two_together, parts)


def statistics_of(moments: Moments, kind: StatisticsKind) -> Statistics:
    """Statistics over `moments`: one number for all of a modality (`scalar`), or one a dimension (`feature`).

    A dimension that never changes, and a modality without a row, get the standard deviation 1.
    """
    mean, variance = moments.mean, moments.spread / max(moments.count, 1)
    if kind == "scalar":
        apart = mean - mean[0]  # exactly 0 where all are alike: a rounding error is no change
        variance = np.full_like(variance, variance.mean() + apart.var())
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
        name: Statistics(*(np.broadcast_to(np.float64(each[key]), (each["width"],)).copy() for key in ("mean", "std")))
        for name, each in found.items()
    }


def _block_moments(block: NDArray[np.floating[Any]]) -> Moments:
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        found = _moments(block)
        exact = np.isfinite(found.spread).all()
        tiny = np.flatnonzero(found.spread < _SMALLEST_SPREAD)
        if tiny.size:  # few, or dimensions that never change
            exact &= bool((block[:, tiny] == block[0, tiny]).all())
    return found if exact else _moments(block.astype(np.float64))


def _moments(block: NDArray[np.floating[Any]]) -> Moments:
    first = block[0]
    away = block - first  # exactly 0 where nothing changes
    step = away.mean(axis=0)
    away -= step
    return Moments(len(block), first.astype(np.float64) + step, np.einsum("nd,nd->d", away, away).astype(np.float64))


def _two_together(a: Moments, b: Moments) -> Moments:
    count = a.count + b.count
    if not a.count or not b.count:
        return a if a.count else b
    step = b.mean - a.mean
    spread = a.spread + b.spread + step**2 * (a.count * b.count / count)
    return Moments(count, a.mean + step * (b.count / count), spread)


def _short(values: NDArray[np.float64]) -> float | list[float]:
    return float(values[0]) if np.all(values == values[0]) else values.tolist()
