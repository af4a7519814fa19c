"""S3: channel attention. A softmax over the channels of all modalities weighs them, frame by frame.

    leader  [T, 512] ─ TCN ─ batch norm ─ Linear 128 ─┐
    VGGish  [T, 128] ─ TCN ─ batch norm ─ Linear 128 ─┼─ concat 128 M ─┬─ Linear ─ softmax ─┐
    …                                                 ┘                └────────────────── × ─ Linear ─ batch norm
                                                          ─ LeakyReLU ─ Linear ─ tanh

Frame by frame after the TCNs, which are causal: the last 249 frames are seen (five levels, kernel 5).

Source: S3 and its code; docs/sources.md (LFAN and CAN). Tested by tests/fusion/models/test_lfan_can.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import HeadSettings, check_settings
from ..layers.modality import MaskedBatchNorm, ModalityTCN, channels_by_width
from ..layers.tcn import LEAK
from .table import widths_of


@dataclass(frozen=True)
class CANSettings(HeadSettings):
    """S3's CAN. Source: docs/sources.md (LFAN and CAN)."""

    lead_channels: Annotated[tuple[int, ...], "S3's code"] = (256, 256, 128, 128, 128)
    wide_channels: Annotated[tuple[int, ...], "S3's code: BERT"] = (256, 256, 128, 128)
    other_channels: Annotated[tuple[int, ...], "S3's code: log-mel, VGGish"] = (128, 128, 64, 64, 64)
    narrow_channels: Annotated[tuple[int, ...], "S3's code: eGeMAPS, MFCC"] = (64, 64, 32, 32)
    kernel: Annotated[int, "S3's code"] = 5
    causal: Annotated[bool, "S3's code"] = True
    attention_width: Annotated[int, "S3's code"] = 128
    dropout: Annotated[float, "S3's code"] = 0.2
    tanh: Annotated[bool, "S3"] = True

    def __post_init__(self) -> None:
        channels = ("lead_channels", "wide_channels", "other_channels", "narrow_channels")
        check_settings(self, (*channels, "kernel", "attention_width"), below_one=["dropout"])


class CAN(nn.Module):
    """Rows of two modalities or more, the leader first, to `outputs` numbers per frame. Raises ValueError with one."""

    def __init__(self, settings: CANSettings, shapes: Sequence[tuple[int, ...]], outputs: int) -> None:
        super().__init__()
        widths = widths_of(shapes)
        if len(widths) < 2:
            raise ValueError("can weighs two modalities or more against each other; see --modalities")
        by_width = (settings.lead_channels, settings.wide_channels, settings.other_channels, settings.narrow_channels)
        channels = channels_by_width(widths, *by_width)
        self.temporal = nn.ModuleList(
            ModalityTCN(width, levels, settings.kernel, settings.dropout, settings.causal)
            for width, levels in zip(widths, channels, strict=True)
        )
        self.attn = nn.ModuleList(nn.Linear(levels[-1], settings.attention_width) for levels in channels)
        together = len(widths) * settings.attention_width
        self.weights = nn.Linear(together, together)
        self.fc1 = nn.Linear(together, together)
        self.bn1 = MaskedBatchNorm(together)
        self.fc2 = nn.Linear(together, outputs)
        self.tanh = nn.Tanh() if settings.tanh else nn.Identity()

    def forward(self, features: Sequence[Tensor], valid: Sequence[Tensor], mask: Tensor) -> Tensor:
        """`features` [B, T, D_m], `valid` bool [B, T] of each, `mask` bool [B, T] (no padding) → [B, T, outputs]."""
        streams = [
            linear(tcn(rows, there, mask))
            for linear, tcn, rows, there in zip(self.attn, self.temporal, features, valid, strict=True)
        ]
        rows = torch.cat(streams, -1)
        weighed = self.fc1(self.weights(rows).softmax(-1) * rows)
        real = torch.stack(list(valid)).any(0) & mask
        predicted: Tensor = self.tanh(self.fc2(F.leaky_relu(self.bn1(weighed, real), LEAK)))
        return predicted
