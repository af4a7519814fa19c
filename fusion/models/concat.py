"""The baseline, ours: features side by side, one linear layer. Tested by tests/fusion/models/test_heads.py."""

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
class ConcatSettings(HeadSettings):
    """The baseline: features → Linear."""

    dropout: Annotated[float, "ours"] = 0.0

    def __post_init__(self) -> None:
        check_settings(self, below_one=["dropout"])


class Concat(nn.Module):
    """features → Linear → outputs, frame by frame."""

    def __init__(self, settings: ConcatSettings, shapes: Sequence[tuple[int, ...]], outputs: int) -> None:
        super().__init__()
        self.dropout = Dropout(settings.dropout)
        self.linear = nn.Linear(sum(widths_of(shapes)), outputs)

    def forward(self, features: Sequence[Tensor], valid: Sequence[Tensor], mask: Tensor) -> Tensor:
        """`features` [B, T, D_m] → [B, T, outputs]."""
        rows: Tensor = self.linear(self.dropout(torch.cat(list(features), dim=-1)))
        return rows
