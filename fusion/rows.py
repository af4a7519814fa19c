"""Features of every trial as tables of rows: in memory (on the device where they fit), or read from the store.

Row r of the table belongs to the trial whose span holds r; row N, one past the last, is all zeros.
Tested by tests/fusion/test_data.py.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..features_store.store import FeatureStore
from .sources import TrialSource
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

    def __init__(
        self,
        store: FeatureStore,
        sources: Mapping[str, TrialSource],
        spans: Mapping[str, Span],
        modalities: Sequence[str],
    ) -> None:
        self._store = store
        self._modalities = tuple(modalities)
        self._sources = [sources[name] for name in spans]
        self._first = [first for first, _ in spans.values()]
        self._open: dict[str, tuple[Any, ...]] = {}

    def gather(self, windows: Windows, window: int) -> tuple[Tensor, ...]:
        """Rows [B, window, D] of each modality, on the CPU."""
        spans = zip(windows.start.tolist(), windows.length.tolist(), strict=True)
        parts = [self._window(start, length, window) for start, length in spans]
        return tuple(torch.from_numpy(np.stack(modality)) for modality in zip(*parts, strict=True))

    def _window(self, start: int, length: int, window: int) -> list[NDArray[np.float32]]:
        at = bisect_right(self._first, start) - 1
        begin = start - self._first[at]
        return [_padded(array, begin, begin + length, window) for array in self._arrays(self._sources[at])]

    def _arrays(self, source: TrialSource) -> tuple[Any, ...]:
        if source.stored not in self._open:
            trial = self._store[source.stored]
            self._open[source.stored] = tuple(trial[name] for name in self._modalities)
        return self._open[source.stored]


def _padded(array: Any, begin: int, end: int, window: int) -> NDArray[np.float32]:
    """Rows [begin, end) of an array, its last one repeated where it is shorter, zeros up to `window`."""
    out = np.zeros((window, array.shape[1]), np.float32)
    stored = array.shape[0]
    if stored:
        with np.errstate(over="ignore"):  # float64 numbers beyond float32 are not finite here
            rows = np.asarray(array[min(begin, stored - 1) : min(end, stored)], np.float32)
        rows = np.where(np.isfinite(rows).all(1, keepdims=True), rows, np.float32(0))
        out[: len(rows)] = rows
        out[len(rows) : end - begin] = rows[-1]
    return out
