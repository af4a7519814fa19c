"""S4's attention: an LSTM a modality, weights of the modalities at each frame, an LSTM that reads both ways.

    each   [T, D_m] ─ LSTM 64 ─ Dropout ─ Linear 64 ─┬──────────────────────── weighted sum 64 ─ BiLSTM 2·64 ─ Linear 2
                                                     └ concat M·64 ─ 3 × (Linear 64, ReLU) ─ Linear M (no softmax)

Source: docs/sources.md (S4's networks). Tested by tests/fusion/models/test_s4.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from ..config import HeadSettings, check_settings
from ..layers.dropout import Dropout
from ..layers.recurrence import BiLSTM, LSTMs, real_rows
from .table import widths_of


@dataclass(frozen=True)
class AttentionSettings(HeadSettings):
    """S4's AttentionSeq. Source: docs/sources.md (S4's networks)."""

    hidden: Annotated[int, "S4's code"] = 64
    dropout: Annotated[float, "S4's code"] = 0.4

    def __post_init__(self) -> None:
        check_settings(self, positive=["hidden"], below_one=["dropout"])


class Attention(nn.Module):
    """At each frame a weighted sum of what the modalities' LSTMs say, read both ways."""

    def __init__(self, settings: AttentionSettings, shapes: Sequence[tuple[int, ...]], outputs: int) -> None:
        super().__init__()
        widths, hidden = widths_of(shapes), settings.hidden
        self.temporal = LSTMs(widths, hidden)
        self.dropout = Dropout(settings.dropout)
        self.encoders = nn.ModuleList(nn.Linear(hidden, hidden) for _ in widths)
        self.weights = nn.Sequential(
            Dropout(settings.dropout),
            nn.Linear(len(widths) * hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, len(widths)),
        )
        self.context = BiLSTM(hidden, hidden)
        self.head = nn.Linear(2 * hidden, outputs)

    def forward(self, features: Sequence[Tensor], valid: Sequence[Tensor], mask: Tensor) -> Tensor:
        """`features` [B, T, D_m], `valid` bool [B, T] of each, `mask` bool [B, T] (no padding) → [B, T, outputs]."""
        states, _ = self.temporal(real_rows(features, valid, mask))
        said = self.dropout(states.transpose(1, 2))  # [M, B, T, hidden]
        encoded = torch.stack([encoder(rows) for encoder, rows in zip(self.encoders, said, strict=True)], dim=-1)
        weights = self.weights(encoded.transpose(-1, -2).flatten(-2))  # one modality after the other
        fused = torch.matmul(encoded, weights.unsqueeze(-1)).squeeze(-1)
        rows: Tensor = self.head(torch.cat(self.context(fused, mask), dim=-1))
        return rows
