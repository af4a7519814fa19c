"""S4's head for expressions: a Transformer encoder over 64 frames, the features kept beside it.

    [T, D] ─┬─ encoder × 6, pre-norm, 8 heads of 64, feed-forward 512 ─ [T, D] ─┬─ concat 2 D ─ Dropout ─ Linear
            └────────────────────────── residual ────────────────────── [T, D] ─┘

The output is linear: logits of classes, or values. Every frame of the window is seen, before and after: not causal.

Source: S4's code; its paper's six layers; docs/sources.md (S4's expressions).
Tested by tests/fusion/models/test_transformers.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from ..config import HeadSettings, check_settings
from ..layers.dropout import Dropout
from ..layers.transformer import Encoder
from .table import widths_of


@dataclass(frozen=True)
class ExprTransformerSettings(HeadSettings):
    """S4, expressions; `layers=1, heads=2` is its code. Source: docs/sources.md (S4's expressions)."""

    layers: Annotated[int, "S4's paper; code: 1"] = 6
    heads: Annotated[int, "ours; S4's code: 2"] = 8
    head_width: Annotated[int, "S4's code"] = 64
    feed_forward: Annotated[int, "S4's code"] = 512
    encoder_dropout: Annotated[float, "S4's code"] = 0.0
    positions: Annotated[bool, "ours"] = False
    dropout: Annotated[float, "S4's code"] = 0.5

    def __post_init__(self) -> None:
        positive = ("layers", "heads", "head_width", "feed_forward")
        check_settings(self, positive, below_one=["encoder_dropout", "dropout"])


class ExprTransformer(nn.Module):
    """Rows of every modality, side by side, to `outputs` numbers per frame."""

    def __init__(self, settings: ExprTransformerSettings, shapes: Sequence[tuple[int, ...]], outputs: int) -> None:
        super().__init__()
        width = sum(widths_of(shapes))
        self.encoder = Encoder(
            settings.layers,
            width,
            settings.heads,
            settings.head_width,
            settings.feed_forward,
            settings.encoder_dropout,
            norm_first=True,
            positions=settings.positions,
        )
        self.dropout = Dropout(settings.dropout)
        self.head = nn.Linear(2 * width, outputs)

    def forward(self, features: Sequence[Tensor], valid: Sequence[Tensor], mask: Tensor) -> Tensor:
        """`features` [B, T, D_m], `valid` bool [B, T] of each, `mask` bool [B, T] (no padding) → [B, T, outputs].

        Rows that are not valid are zeros; frames without any real row are not attended to.
        """
        known = [
            rows.masked_fill(~(there & mask).unsqueeze(-1), 0.0) for rows, there in zip(features, valid, strict=True)
        ]
        together = torch.cat(known, -1)
        real = torch.stack(list(valid)).any(0) & mask
        predicted: Tensor = self.head(self.dropout(torch.cat([together, self.encoder(together, real)], -1)))
        return predicted
