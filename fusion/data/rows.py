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
from torch import Tensor

from ...features_store.trial import Trial, fill_rows
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
