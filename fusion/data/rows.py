"""Features of every trial as tables of rows: in memory (on the device if they fit), or read from the store.

Row r of the table belongs to the trial whose span holds r; row N, one past the last, is all zeros.
Tested by tests/fusion/data/test_dataset.py.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...features_store.trial import Trial
from .windows import Windows, row_index

Span = tuple[int, int]


@dataclass(frozen=True)
class ResidentRows:
    """One tensor [N + 1, D] a modality; taking windows is one indexed copy."""

    tables: Sequence[Tensor]

    def gather(self, windows: Windows, window: int) -> tuple[Tensor, ...]:
        """Rows [B, window, D] of each modality, on the tables' device; zeros after the end of a trial."""
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
        """Rows [B, window, D] of each modality, on the CPU; zeros after the end of a trial.

        Raises StoreMismatch if rows are broken or missing, or a trial is no longer the one that was opened.
        """
        tables = [np.zeros((len(windows), window, width), np.float32) for width in self._widths.values()]
        for at, (start, length) in enumerate(zip(windows.start.tolist(), windows.length.tolist(), strict=True)):
            number = bisect_right(self._first, start) - 1
            trial, begin = self._trials[number], start - self._first[number]
            with trial.unchanged():
                for modality, table in zip(self._widths, tables, strict=True):
                    fill_rows(trial, modality, begin, table[at, :length])
        return tuple(map(torch.from_numpy, tables))


RowTable = ResidentRows | StreamedRows


def fill_rows(trial: Trial, modality: str, begin: int, out: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Put a trial's rows from `begin` on into `out` [n, D], its last one repeated beyond its end.

    Rows that are not finite become zeros; returns which, bool [n]. Raises StoreMismatch if rows are broken or
    missing.
    """
    stored = trial.rows
    if not stored:
        out[:] = 0
        return np.zeros(len(out), np.bool_)
    first, stop = min(begin, stored - 1), min(begin + len(out), stored)
    count = stop - first
    if count == stored and trial[modality].dtype == out.dtype:
        trial.read_into(modality, out[:stored])  # the fastest way
    else:
        with np.errstate(over="ignore"):  # float64 numbers beyond float32 become infinite, and are not finite below
            out[:count] = trial.window(modality, first, stop)
    out[count:] = out[count - 1]
    broken = np.zeros(len(out), np.bool_)
    if not np.isfinite(out).all():
        broken[:] = ~np.isfinite(out).all(axis=1)
        out[broken] = 0
    return broken
