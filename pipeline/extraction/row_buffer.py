"""Rows that wait on disk until a trial's length is known, so that memory does not grow with a video's length.

Tested by tests/pipeline/extraction/test_row_buffer.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...features_store.clock import NO_ROW


class RowBuffer:
    """Rows of one type appended to one file and read back in slices."""

    def __init__(self, path: Path, row_shape: tuple[int, ...], dtype: str | np.dtype[Any] = "float32") -> None:
        self.path = path
        self.row_shape = row_shape
        self.dtype = np.dtype(dtype)
        self._row_bytes = self.dtype.itemsize * int(np.prod(row_shape))
        self._rows = 0
        path.touch()

    def __len__(self) -> int:
        return self._rows

    def append(self, rows: NDArray[Any]) -> None:
        """Add `rows` [N, *row_shape]. Raises ValueError where they have another shape or type."""
        if rows.shape[1:] != self.row_shape or rows.dtype != self.dtype:
            wanted = f"{self.dtype} rows of {self.row_shape}"
            raise ValueError(f"{self.path.name} takes {wanted}, got {rows.dtype} {rows.shape}")
        with self.path.open("ab") as file:
            file.write(rows.tobytes())
        self._rows += len(rows)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows [start, stop), of those that there are: [N, *row_shape]."""
        with self.path.open("rb") as file:
            file.seek(start * self._row_bytes)
            data = file.read((stop - start) * self._row_bytes)
        return np.frombuffer(data, self.dtype).reshape(-1, *self.row_shape)


@dataclass
class PendingRows:
    """Rows on their way to a buffer: they are appended in the order in which they were asked for.

    A future gives rows [N, *row_shape] of the buffer. `at_most`: futures that may be on their way; `asked`, `arrived`:
    futures so far.
    """

    buffer: RowBuffer
    at_most: int = 16
    asked: int = 0
    arrived: int = 0
    waiting: deque[Future[NDArray[Any]]] = field(default_factory=deque)

    def expect(self, futures: Iterable[Future[NDArray[Any]]]) -> None:
        """Take more; waits while more than `at_most` are on their way. Raises what has gone wrong with them."""
        before = len(self.waiting)
        self.waiting.extend(futures)
        self.asked += len(self.waiting) - before
        self.settle(self.at_most)

    def settle(self, at_most: int = 0) -> None:
        """Wait until no more than `at_most` are on their way."""
        while len(self.waiting) > at_most or (self.waiting and self.waiting[0].done()):
            self.buffer.append(self.waiting.popleft().result())
            self.arrived += 1


@contextmanager
def settled(pending: Iterable[PendingRows]) -> Iterator[None]:
    """Wait at the end for all rows that are on their way; after an error nobody wants them any more."""
    try:
        yield
    except BaseException:
        for future in (future for each in pending for future in each.waiting):
            future.cancel()
        raise
    for each in pending:
        each.settle()


@dataclass(frozen=True)
class GatheredRows:
    """A trial's rows as a choice of those on disk: row i is the buffer's row `source[i]`, or zeros at `NO_ROW`.

    `source` int64 [T] rises, apart from `NO_ROW`, so that a slice of rows reads one stretch of the file.
    """

    buffer: RowBuffer
    source: NDArray[np.int64]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one value."""
        return self.buffer.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """[T, *row_shape]."""
        return (len(self.source), *self.buffer.row_shape)

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        """Rows [start, stop) as an array."""
        source = self.source[rows]
        present = source != NO_ROW
        out = np.zeros((len(source), *self.buffer.row_shape), self.dtype)
        if present.any():
            wanted = source[present]
            first = int(wanted[0])
            out[present] = self.buffer.read(first, int(wanted[-1]) + 1)[wanted - first]
        return out
