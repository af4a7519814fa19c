"""Mean and standard deviation of features, from moments that are kept trial by trial.

So each fold's statistics come from its training trials alone, and nothing is read twice. Unlike in the field's
code, validation data is not normalised by its own: docs/sources.md (Statistics).

    rows [N, D]          D dimensions, N numbers of each
    maps [N, C, H, W]    C channels, N · H · W numbers of each: a channel means the same wherever it is on the map
Tested by tests/fusion/data/test_statistics.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import StatisticsKind

# What varies by less than float32 has digits for cannot be standardised in it.
_SMALLEST_STD = float(np.finfo(np.float32).tiny)
# Sums of squares below this have lost digits in float32, or are 0 although something changes.
_SMALLEST_SQUARES = 1e-30
_BLOCK_ROWS = 128


@dataclass(frozen=True)
class Moments:
    """Of `count` rows, or places of maps: their mean [D] and the sum of squared distances from it [D], float64."""

    count: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation [D] of one modality, of maps [C]; all alike if they are scalar."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]


def moments_of(rows: NDArray[np.floating[Any]]) -> Moments:
    """Moments of rows [N, D, ...], by blocks that stay in the processor's cache (three times as fast as var_mean)."""
    blocks = [Moments(0, np.zeros(rows.shape[1]), np.zeros(rows.shape[1]))]
    step = _BLOCK_ROWS if rows.ndim == 2 else max(1, _BLOCK_ROWS // math.prod(rows.shape[2:]))
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        if rows.ndim > 2:  # channels last, a row a place
            block = np.moveaxis(block, 1, -1).reshape(-1, rows.shape[1]).astype(np.float32)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            found = _block_moments(block)
            exact = np.isfinite(found.squares).all()
            tiny = np.flatnonzero(found.squares < _SMALLEST_SQUARES)
            if tiny.size:  # few, or dimensions that never change
                exact &= bool((block[:, tiny] == block[0, tiny]).all())
        blocks.append(found if exact else _block_moments(block.astype(np.float64)))
    return together(blocks)


def together(parts: Iterable[Moments]) -> Moments:
    """Moments of all rows of the parts. Source: Chan, Golub, LeVeque 1979. Raises ValueError without parts."""
    whole: Moments | None = None
    for part in parts:
        if whole is None or not whole.count:
            whole = part
        elif part.count:
            count = whole.count + part.count
            step = part.mean - whole.mean
            squares = whole.squares + part.squares + step**2 * (whole.count * part.count / count)
            whole = Moments(count, whole.mean + step * (part.count / count), squares)
    if whole is None:
        raise ValueError("moments of no parts")
    return whole


def statistics_of(moments: Moments, kind: StatisticsKind) -> Statistics:
    """Statistics over `moments`: one number for all of a modality (`scalar`), or one a dimension (`feature`).

    Of maps `feature` is one a channel. A dimension that never changes, and a modality without a row, get the standard
    deviation 1.
    """
    mean, variance = moments.mean, moments.squares / max(moments.count, 1)
    if kind == "scalar":
        apart = mean - mean[0]  # exactly 0 if all are alike: a rounding error is no change
        variance = np.full_like(variance, variance.mean() + apart.var())
        mean = np.full_like(mean, mean.mean())
    std = np.sqrt(variance)
    return Statistics(mean, np.where(std > _SMALLEST_STD, std, 1.0))


def as_json(statistics: Mapping[str, Statistics]) -> dict[str, Any]:
    """{modality: {mean, std, width}}: one number each if all dimensions are alike, else a list."""
    content: dict[str, dict[str, Any]] = {}
    for name, each in statistics.items():
        content[name] = {
            key: float(values[0]) if np.all(values == values[0]) else values.tolist()
            for key, values in (("mean", each.mean), ("std", each.std))
        }
        content[name]["width"] = len(each.mean)
    return content


def from_json(content: Mapping[str, Any]) -> dict[str, Statistics]:
    """Statistics out of statistics.json."""
    return {
        name: Statistics(*(np.broadcast_to(np.float64(each[key]), (each["width"],)).copy() for key in ("mean", "std")))
        for name, each in content.items()
    }


def _block_moments(block: NDArray[np.floating[Any]]) -> Moments:
    first = block[0]
    away = block - first  # exactly 0 if nothing changes
    step = away.mean(axis=0)
    away -= step
    return Moments(len(block), first.astype(np.float64) + step, np.einsum("nd,nd->d", away, away).astype(np.float64))
