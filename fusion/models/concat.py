"""The baseline: features side by side, one linear layer. Tested by tests/fusion/models/test_heads.py."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..config import ConcatSettings
from ..layers.dropout import Dropout


class Concat(nn.Module):
    """features → Linear → outputs, frame by frame."""

    def __init__(self, settings: ConcatSettings, widths: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.dropout = Dropout(settings.dropout)
        self.linear = nn.Linear(sum(widths), outputs)

    def forward(self, features: Sequence[Tensor], valid: Sequence[Tensor], mask: Tensor) -> Tensor:
        """`features` [B, T, D_m] → [B, T, outputs]."""
        rows: Tensor = self.linear(self.dropout(torch.cat(list(features), dim=-1)))
        return rows
