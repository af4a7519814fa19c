"""S1: multi-scale TCNs, cross-attention from the leading modality to each other one, a regression layer.

    lead   [T, 512] ─ TCN k=3,5,7 ─ 384 ─┬──────────────── query ──┐
    other  [T, 128] ─ TCN k=3,5,7 ─ 192 ─┼─ key, value ─ attention ┴─ 256 ─┐   one per modality
                                         └──────────────────────── 384 ────┴─ concat 896
    concat ─ LayerNorm ─ Linear 128 ─ GELU ─ Dropout ─ Linear 2

Source: S1 (arXiv 2503.10523), docs/sources.md (TCN, Cross-attention). Tested by tests/fusion/models/test_heads.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from ..config import HeadSettings, check_settings
from ..layers.cross_attention import CrossAttention
from ..layers.dropout import Dropout
from ..layers.tcn import MultiScaleTCN
from .table import widths_of


@dataclass(frozen=True)
class CrossAttentionSettings(HeadSettings):
    """S1: multi-scale TCNs and cross-attention. Source: docs/sources.md (TCN, Cross-attention).

    Raises ValueError on settings out of range, or that do not go together.
    """

    lead_channels: Annotated[tuple[int, ...], "S1's code"] = (128, 128, 128, 128)
    other_channels: Annotated[tuple[int, ...], "S1's code"] = (64, 64, 64, 64)
    kernels: Annotated[tuple[int, ...], "S1"] = (3, 5, 7)
    causal: Annotated[bool, "the code of S1 and S3"] = True
    attention_width: Annotated[int, "S1's code"] = 256
    heads: Annotated[int, "S1's code"] = 4
    attention_reach: Annotated[int, "S1: the window; a reach is ours"] = 0
    hidden: Annotated[int, "a variant of S1's code (published: 64)"] = 128
    dropout: Annotated[float, "S1's code"] = 0.1
    tanh: Annotated[bool, "S1's formula: none; S1's code: tanh"] = False

    def __post_init__(self) -> None:
        widths = ("lead_channels", "other_channels", "kernels", "attention_width", "heads", "hidden")
        check_settings(self, positive=widths, not_negative=["attention_reach"], below_one=["dropout"])
        if self.attention_width % self.heads:
            raise ValueError(f"attention_width {self.attention_width} is not a multiple of heads {self.heads}")


class CrossAttentionFusion(nn.Module):
    """Rows of every modality, the leading one first, to `outputs` numbers per frame."""

    def __init__(self, settings: CrossAttentionSettings, shapes: Sequence[tuple[int, ...]], outputs: int) -> None:
        super().__init__()
        widths = widths_of(shapes)
        channels = [settings.lead_channels, *[settings.other_channels] * (len(widths) - 1)]
        self.temporal = nn.ModuleList(
            MultiScaleTCN(width, levels, settings.kernels, settings.dropout, settings.causal)
            for width, levels in zip(widths, channels, strict=True)
        )
        lead, *others = (len(settings.kernels) * levels[-1] for levels in channels)
        self.attention = nn.ModuleList(
            CrossAttention(lead, other, settings.attention_width, settings.heads, settings.attention_reach)
            for other in others
        )
        width = lead + len(others) * settings.attention_width
        self.head = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, settings.hidden),
            nn.GELU(),
            Dropout(settings.dropout),
            nn.Linear(settings.hidden, outputs),
            nn.Tanh() if settings.tanh else nn.Identity(),
        )

    def forward(self, features: Sequence[Tensor], valid: Sequence[Tensor], mask: Tensor) -> Tensor:
        """`features` [B, T, D_m], `valid` bool [B, T] of each, `mask` bool [B, T] (no padding) → [B, T, outputs]."""
        lead, *others = (tcn(rows, mask) for tcn, rows in zip(self.temporal, features, strict=True))
        answers = [
            attention(lead, other, there & mask)
            for attention, other, there in zip(self.attention, others, valid[1:], strict=True)
        ]
        fused: Tensor = self.head(torch.cat([lead, *answers], dim=-1))
        return fused
