"""Transformer encoder over the frames of a window; frames that are not real are never attended to.

    post-norm (as torch, and Vaswani et al. 2017)      x ─┬─ attention ─ + ─ norm ─┬─ feed-forward ─ + ─ norm
                                                          └──────────────┘         └─────────────────┘
    pre-norm (as ViT, and S4's code)                   x ─┬─ norm ─ attention ─ + ─┬─ norm ─ feed-forward ─ +
                                                          └─────────────────────┘  └───────────────────────┘

Source: Vaswani et al. 2017, equation 1 and sections 3.3, 3.5; docs/sources.md (S2's encoder, S4's expressions).
Tested by tests/fusion/layers/test_transformer.py.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .cross_attention import CrossAttention
from .dropout import Dropout


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, each with a connection around it.

    `dropout` is on what both add; attention's weights are not dropped.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_width: int,
        hidden: int,
        dropout: float,
        norm_first: bool,
        activation: nn.Module,
    ) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.attention = CrossAttention(width, width, heads * head_width, heads)
        self.out = nn.Linear(heads * head_width, width)
        self.feed = nn.Sequential(nn.Linear(width, hidden), activation, Dropout(dropout), nn.Linear(hidden, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """`x` [B, T, width], `real` bool [B, T] (frames that may be attended to) → [B, T, width]."""
        if self.norm_first:
            seen = self.norm1(x)
            x = x + self.dropout(self.out(self.attention(seen, seen, real)))
            after: Tensor = x + self.dropout(self.feed(self.norm2(x)))
            return after
        x = self.norm1(x + self.dropout(self.out(self.attention(x, x, real))))
        normal: Tensor = self.norm2(x + self.dropout(self.feed(x)))
        return normal


class Encoder(nn.Module):
    """Layers one after the other; `positions` adds sines and cosines of the frame's place in the window before them.

    `dropout`: as `EncoderLayer` has it.
    """

    def __init__(
        self,
        layers: int,
        width: int,
        heads: int,
        head_width: int,
        hidden: int,
        dropout: float,
        norm_first: bool,
        positions: bool,
    ) -> None:
        super().__init__()
        self.positions = positions
        self.layers = nn.ModuleList(
            EncoderLayer(width, heads, head_width, hidden, dropout, norm_first, nn.GELU() if norm_first else nn.ReLU())
            for _ in range(layers)
        )

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """`x` [B, T, width], `real` bool [B, T] → [B, T, width]."""
        if self.positions:
            x = x + sinusoid(x.shape[1], x.shape[2], x.device).to(x.dtype)
        for layer in self.layers:
            x = layer(x, real)
        return x


def sinusoid(count: int, width: int, device: torch.device | None = None) -> Tensor:
    """Places t = 0 … T - 1, float64 [T, width]: sin(t / 10000^(2i/width)) in column 2i, its cosine in 2i + 1.

    Source: Vaswani et al. 2017, section 3.5.
    """
    place = torch.arange(count, dtype=torch.float64, device=device)[:, None]
    pair = torch.arange(0, width, 2, dtype=torch.float64, device=device)
    angle = place * torch.exp(-math.log(10000) * pair / width)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :width]
