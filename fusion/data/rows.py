"""Features of every trial as tables of rows: in memory (on the device where they fit), or read from the store.

Row r of the table belongs to the trial whose span holds r; row N, one past the last, is all zeros.
Tested by tests/fusion/data/test_dataset.py.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...features_store.trial import Trial
from .windows import Windows, row_index

Span = tuple[int, int]


class RowTable(Protocol):
    """Rows of every modality by window."""

    def gather(self, windows: Windows, window: int) -> tuple[Tensor, ...]:
        """Rows [B, window, D] of each modality, zeros where a trial has ended."""


class ResidentRows:
    """One tensor [N + 1, D] a modality; taking windows is one indexed copy."""

    def __init__(self, tables: Sequence[Tensor]) -> None:
        self.tables = tuple(tables)

    def gather(self, windows: Windows, window: int) -> tuple[Tensor, ...]:
        """Rows [B, window, D] of each modality, on the tables' device."""
        beyond = len(self.tables[0]) - 1
        index = row_index(windows, window, beyond).to(self.tables[0].device, non_blocking=True)
        return tuple(table.index_select(0, index.flatten()).view(*index.shape, -1) for table in self.tables)


class StreamedRows:
    """Rows read from the store when they are asked for: for corpora larger than memory."""

    def __init__(self, trials: Mapping[str, Trial], spans: Mapping[str, Span], widths: Mapping[str, int]) -> None:
        self._trials = [trials[name] for name in spans]
        self._first = [first for first, _ in spans.values()]
        self._widths = widths

    def gather(self, windows: Windows, window: int) -> tuple[Tensor, ...]:
        """Rows [B, window, D] of each modality, on the CPU.

        Raises StoreMismatch where rows are broken or missing, or a trial is no longer the one that was opened.
        """
        spans = zip(windows.start.tolist(), windows.length.tolist(), strict=True)
        parts = [self._window(start, length, window) for start, length in spans]
        return tuple(torch.from_numpy(np.stack(modality)) for modality in zip(*parts, strict=True))

    def _window(self, start: int, length: int, window: int) -> list[NDArray[np.float32]]:
        at = bisect_right(self._first, start) - 1
        trial, begin = self._trials[at], start - self._first[at]
        tables = [np.zeros((window, width), np.float32) for width in self._widths.values()]
        with trial.unchanged():
            for modality, table in zip(self._widths, tables, strict=True):
                fill_rows(trial, modality, begin, table[:length])
        return tables


def fill_rows(trial: Trial, modality: str, begin: int, out: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Put a trial's rows from `begin` on into `out` [n, D], its last one repeated beyond its end.

    Rows that are not finite become zeros; returns which, bool [n]. Raises StoreMismatch where rows are broken or
    missing.
    """
    stored = trial.rows
    if not stored:
        out[:] = 0
        return np.zeros(len(out), np.bool_)
    first, stop = min(begin, stored - 1), min(begin + len(out), stored)
    there = stop - first
    if there == stored and trial[modality].dtype == out.dtype:
        trial.read_into(modality, out[:stored])  # as fast as it goes
    else:
        with np.errstate(over="ignore"):  # float64 numbers beyond float32 are not finite here
            out[:there] = trial.window(modality, first, stop)
    out[there:] = out[there - 1]
    broken = np.zeros(len(out), np.bool_)
    if not np.isfinite(out).all():
        broken[:] = ~np.isfinite(out).all(axis=1)
        out[broken] = 0
    return broken
