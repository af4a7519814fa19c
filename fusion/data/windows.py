"""Where windows begin, and how rows are taken from a table: index arithmetic, nothing copied beforehand.

    trial of 650 rows, window 300, hop 200         0        200       400       600
                                                   ├──────────────┤
                                                            ├──────────────┤
                                                                  350 ├──────────────┤  one more, at the end
    trial of 120 rows                              ├─────┤· · · · ·                     padded, masked

Source: docs/sources.md (Windows). Tested by tests/fusion/data/test_windows.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...features_store.clock import window_starts


@dataclass(frozen=True)
class Windows:
    """Windows of rows of a table: first row and number of rows of each, int64 [n] (on the CPU)."""

    start: Tensor
    length: Tensor

    def __len__(self) -> int:
        return len(self.start)


def plan_windows(spans: Iterable[tuple[int, int]], window: int, hop: int) -> Windows:
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
