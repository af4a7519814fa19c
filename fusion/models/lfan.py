"""S3: leader-follower attention. At each frame the modalities attend to one another; the leader is kept beside it.

    leader  [T, 512] ─ TCN ─ batch norm ─ 128 ─┬─ q, k, v of 32 ─┐
    VGGish  [T, 128] ─ TCN ─ batch norm ─  32 ─┼─ q, k, v of 32 ─┼─ attention over a frame's M modalities ─ + values
    …                                          ┼─ q, k, v of 32 ─┘         ─ 32 M ─ Linear ─ Dropout ─ LayerNorm ─┐
                                               └── 128 ─────────────── concat 128 + 32 M ─ Linear ─ tanh ─────────┘

Frame by frame after the TCNs, which are causal: the last 121 frames are seen (four levels, kernel 5).

Source: S3 and its code; docs/sources.md (LFAN and CAN). Tested by tests/fusion/models/test_lfan_can.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from ..config import HeadSettings, check_settings
from ..layers.dropout import Dropout
from ..layers.modality import ModalityTCN, channels_by_width
from .table import widths_of


@dataclass(frozen=True)
class LFANSettings(HeadSettings):
    """S3's LFAN. Source: docs/sources.md (LFAN and CAN).

    Raises ValueError on settings out of range, or that do not go together.
    """

    lead_channels: Annotated[tuple[int, ...], "S3's code"] = (256, 256, 128, 128)
    wide_channels: Annotated[tuple[int, ...], "S3's code: BERT"] = (256, 256, 128, 128)
    other_channels: Annotated[tuple[int, ...], "S3's code: log-mel, VGGish"] = (64, 64, 32, 32)
    narrow_channels: Annotated[tuple[int, ...], "S3's code: eGeMAPS, MFCC"] = (32, 32, 32, 32)
    kernel: Annotated[int, "S3's code"] = 5
    causal: Annotated[bool, "S3's code"] = True
    attention_width: Annotated[int, "S3's code"] = 32
    heads: Annotated[int, "S3's code"] = 2
    dropout: Annotated[float, "S3's code"] = 0.1
    tanh: Annotated[bool, "S3"] = True

    def __post_init__(self) -> None:
        channels = ("lead_channels", "wide_channels", "other_channels", "narrow_channels")
        check_settings(self, (*channels, "kernel", "attention_width", "heads"), below_one=["dropout"])
        if self.attention_width % self.heads:
            raise ValueError(f"attention_width {self.attention_width} is not a multiple of heads {self.heads}")


class ModalityAttention(nn.Module):
    """Attention of the modalities of one frame to one another: M rows of any widths to M · width numbers.

    `dropout`: the share [0, 1) of these numbers.
    """

    def __init__(self, widths: Sequence[int], width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.ModuleList(nn.Linear(each, 3 * width) for each in widths)
        self.out = nn.Linear(len(widths) * width, len(widths) * width)
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(len(widths) * width)

    def forward(self, streams: Sequence[Tensor], valid: Tensor) -> Tensor:
        """`streams` [B, T, D_m], `valid` bool [B, T, M] → [B, T, M · width].

        A modality that is not valid is attended to by none of the others, unless none is valid.
        """
        rows = torch.stack([linear(each) for linear, each in zip(self.qkv, streams, strict=True)], 2)
        # A head has its query, key and value side by side: [B, T, heads, M, width / heads] of each.
        query, key, value = rows.view(*rows.shape[:3], self.heads, -1).transpose(2, 3).chunk(3, -1)
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        heard = (valid | ~valid.any(-1, keepdim=True))[:, :, None, None]
        answer = scores.masked_fill(~heard, -math.inf).softmax(-1) @ value + value
        together: Tensor = self.norm(self.dropout(self.out(answer.flatten(2))))  # heads, then modalities
        return together


class LFAN(nn.Module):
    """Rows of two modalities or more, the leader first, to `outputs` numbers per frame. Raises ValueError with one."""

    def __init__(self, settings: LFANSettings, shapes: Sequence[tuple[int, ...]], outputs: int) -> None:
        super().__init__()
        widths = widths_of(shapes)
        if len(widths) < 2:
            raise ValueError("lfan needs two modalities or more: the leader and those that follow; see --modalities")
        by_width = (settings.lead_channels, settings.wide_channels, settings.other_channels, settings.narrow_channels)
        channels = channels_by_width(widths, *by_width)
        self.temporal = nn.ModuleList(
            ModalityTCN(width, levels, settings.kernel, settings.dropout, settings.causal)
            for width, levels in zip(widths, channels, strict=True)
        )
        last = [levels[-1] for levels in channels]
        self.fusion = ModalityAttention(last, settings.attention_width, settings.heads, settings.dropout)
        self.head = nn.Sequential(
            nn.Linear(last[0] + len(last) * settings.attention_width, outputs),
            nn.Tanh() if settings.tanh else nn.Identity(),
        )

    def forward(self, features: Sequence[Tensor], valid: Sequence[Tensor], mask: Tensor) -> Tensor:
        """`features` [B, T, D_m], `valid` bool [B, T] of each, `mask` bool [B, T] (no padding) → [B, T, outputs]."""
        streams = [tcn(rows, there, mask) for tcn, rows, there in zip(self.temporal, features, valid, strict=True)]
        followed = self.fusion(streams, torch.stack(list(valid), -1))
        predicted: Tensor = self.head(torch.cat([streams[0], followed], -1))
        return predicted
