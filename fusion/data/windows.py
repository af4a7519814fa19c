"""Windows of rows, and the tables that they are taken from: in memory (on the device if they fit), or in the store.

Index arithmetic, nothing copied beforehand. Row r of a table belongs to the trial whose span holds r; row N, one past
the last, is all zeros.

    trial of 650 rows, window 300, hop 200         0        200       400       600
                                                   ├──────────────┤
                                                            ├──────────────┤
                                                                  350 ├──────────────┤  one more, at the end
    trial of 120 rows                              ├─────┤· · · · ·                     padded, masked

Source: docs/sources.md (Windows). Tested by tests/fusion/data/test_windows.py and test_dataset.py.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...features_store.clock import window_starts
from ...features_store.trial import Trial, fill_rows
from .views import PatchTable

Span = tuple[int, int]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Windows:
    """Windows of rows of a table: first row and number of rows of each, int64 [n] (on the CPU)."""

    start: Tensor
    length: Tensor

    def __len__(self) -> int:
        return len(self.start)


def plan_windows(spans: Iterable[Span], window: int, hop: int) -> Windows:
    """Windows of trials that lie at `spans` (first row, rows) of a table."""
    starts, lengths = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for first, rows in spans:
        own = window_starts(rows, window, hop)
        starts.append(first + own)
        lengths.append(np.full(len(own), min(rows, window)))
    return Windows(torch.from_numpy(np.concatenate(starts)), torch.from_numpy(np.concatenate(lengths)))


def row_index(windows: Windows, window: int, beyond: int) -> Tensor:
    """Row of each frame of each window, int64 [n, window]; `beyond` after the end of the trial."""
    frame = torch.arange(window)
    return torch.where(frame < windows.length[:, None], windows.start[:, None] + frame, beyond)


@dataclass(frozen=True)
class ResidentRows:
    """One tensor [N + 1, *shape] a modality, or the patches of a view; taking windows is one indexed copy."""

    tables: Sequence[Any]

    def gather(self, windows: Windows, window: int) -> tuple[Any, ...]:
        """Rows [B, window, *shape] of each modality, on the tables' device; zeros after the end of a trial."""
        index = row_index(windows, window, len(self.tables[0]) - 1)
        taken: list[Any] = []
        for table in self.tables:
            if isinstance(table, PatchTable):
                taken.append(table.gather(windows.start, windows.length, window))
                continue
            rows = index.to(table.device, non_blocking=True).flatten()
            taken.append(table.index_select(0, rows).view(*index.shape, *table.shape[1:]))
        return tuple(taken)


class StreamedRows:
    """Rows read from the store when they are asked for: for corpora larger than memory."""

    def __init__(
        self,
        trials: Mapping[str, Trial],
        spans: Mapping[str, Span],
        kinds: Mapping[str, tuple[Shape, np.dtype[Any]]],
    ) -> None:
        """`kinds`: the shape of a row of each modality, and the type in which they are handed out."""
        self._trials = [trials[name] for name in spans]
        self._first = [first for first, _ in spans.values()]
        self._kinds = kinds

    def gather(self, windows: Windows, window: int) -> tuple[Any, ...]:
        """Rows [B, window, *shape] of each modality, on the CPU; zeros after the end of a trial.

        Raises StoreMismatch if rows are broken or missing, or a trial is no longer the one that was opened.
        """
        tables = [np.zeros((len(windows), window, *shape), dtype) for shape, dtype in self._kinds.values()]
        for at, (start, length) in enumerate(zip(windows.start.tolist(), windows.length.tolist(), strict=True)):
            number = bisect_right(self._first, start) - 1
            trial, begin = self._trials[number], start - self._first[number]
            with trial.unchanged():
                for modality, table in zip(self._kinds, tables, strict=True):
                    fill_rows(trial, modality, begin, table[at, :length])
        return tuple(map(torch.from_numpy, tables))


RowTable = ResidentRows | StreamedRows
