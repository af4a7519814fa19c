"""The recurrent baseline: features and their validity side by side, GRUs that read forwards, one linear layer.

    rows of m [T, D], zeros where not valid ┐
    valid     [T, 1] ───────────────────────┴─ of all, concat ─ GRU 128 ─ GRU 128 ─ Dropout ─ Linear 2

Source: recurrent layers over a face network's rows are AffWildNet's (Kollias et al., IJCV 2019); the widths are ours.
Tested by tests/fusion/models/test_every_head.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from ..config import HeadSettings, check_settings
from ..layers.dropout import Dropout
from .table import widths_of


@dataclass(frozen=True)
class GRUSettings(HeadSettings):
    """The recurrent baseline: features → GRUs → Linear."""

    hidden: Annotated[int, "ours"] = 128
    layers: Annotated[int, "ours"] = 2
    dropout: Annotated[float, "ours"] = 0.1

    def __post_init__(self) -> None:
        check_settings(self, positive=["hidden", "layers"], below_one=["dropout"])


class RecurrentBaseline(nn.Module):
    """Rows of one modality or more to `outputs` numbers per frame, from what came before and the frame itself."""

    def __init__(self, settings: GRUSettings, shapes: Sequence[tuple[int, ...]], outputs: int) -> None:
        super().__init__()
        width = sum(widths_of(shapes)) + len(shapes)
        self.gru = nn.GRU(width, settings.hidden, settings.layers, batch_first=True)
        self.dropout = Dropout(settings.dropout)
        self.linear = nn.Linear(settings.hidden, outputs)

    def forward(self, features: Sequence[Tensor], valid: Sequence[Tensor], mask: Tensor) -> Tensor:
        """`features` [B, T, D_m], `valid` bool [B, T] of each, `mask` bool [B, T] (no padding) → [B, T, outputs].

        Padding lies at a window's end, and nothing is read backwards: no real frame's output knows of it.
        """
        known = []
        for rows, flags in zip(features, valid, strict=True):
            real = (flags & mask).unsqueeze(-1)
            known += [rows.masked_fill(~real, 0.0), real.to(rows.dtype)]
        states, _ = self.gru(torch.cat(known, dim=-1))
        predicted: Tensor = self.linear(self.dropout(states))
        return predicted
