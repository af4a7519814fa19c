"""What crosses the store's doorway."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]


class StoreMismatch(ValueError):  # noqa: N818 - the house names it so
    """The store holds something else than what was asked of it."""


class RowSource(Protocol):
    """Rows that can be read in slices: an array, or rows that lie on disk until they are written."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[T, ...]."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one value."""

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        """Rows [start, stop) as an array."""


@dataclass(frozen=True)
class FeatureTrack:
    """One feature of one trial: `rows` float32 [T, ...], `valid` bool [T] (true: made from real media)."""

    name: str
    rows: RowSource
    valid: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.rows.shape[0] != len(self.valid):
            raise ValueError(f"{self.name}: rows {self.rows.shape} but validity flags {self.valid.shape}")
