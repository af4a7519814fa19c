"""The recommended head: every modality is heard at its own moment, near it, and with whether it is there at all.

    rows of m [T, D], zeros where not valid ┐
    valid     [T, 1] ───────────────────────┴─ Linear ─ TCN k=3, 5 levels ─ own, 128                  one per modality
    owns of all, side by side ─ LayerNorm ─ query ──┐
    own of m ─────────────── key, value ─ attention ┴─ 12 frames around, by content and offset ─ answer, 128
    owns and answers, 256 a modality ─┬─────────────────────────────────────────────┐
                                      └─ LayerNorm ─ Linear · GELU(Linear) 128 ─────┴─ concat ─ Dropout ─ Linear 2

S1 hears the others through attention over the whole window alone, which has no notion of time. Here each modality's
own rows reach the output beside the answers, attention is near and knows the offset, all modalities ask together, so
that none must be there, and products of two modalities are what the gate makes. What goes straight to the output is not
normalised: a row's size is part of what it says, and layer norm takes it away.

Source: ours; its parts: docs/sources.md (TCN, Cross-attention, Gate and offsets). Tested by
tests/fusion/models/test_avfuse.py and tests/fusion/models/test_every_head.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import HeadSettings, check_settings
from ..layers.cross_attention import CrossAttention
from ..layers.dropout import Dropout
from ..layers.tcn import TCN
from .table import widths_of


@dataclass(frozen=True)
class AvfuseSettings(HeadSettings):
    """Our own head. Raises ValueError on settings out of range, or that do not go together."""

    channels: Annotated[tuple[int, ...], "ours; levels of a TCN: S3"] = (128, 128, 128, 128, 128)
    kernel: Annotated[int, "ours"] = 3
    causal: Annotated[bool, "ours"] = False
    heads: Annotated[int, "S1's code"] = 4
    attention_reach: Annotated[int, "ours"] = 12
    hidden: Annotated[int, "S1, as here"] = 128
    dropout: Annotated[float, "S1's code"] = 0.1
    tanh: Annotated[bool, "S1's formula: none"] = False

    def __post_init__(self) -> None:
        check_settings(
            self, positive=("channels", "kernel", "heads", "hidden", "attention_reach"), below_one=["dropout"]
        )
        if self.channels[-1] % self.heads:
            raise ValueError(f"the last of channels, {self.channels[-1]}, is not a multiple of heads {self.heads}")


class Avfuse(nn.Module):
    """Rows of one modality or more to `outputs` numbers per frame; any of them may be missing at any frame."""

    def __init__(self, settings: AvfuseSettings, shapes: Sequence[tuple[int, ...]], outputs: int) -> None:
        super().__init__()
        widths, own = widths_of(shapes), settings.channels[-1]
        self.entrance = nn.ModuleList(nn.Linear(width + 1, settings.channels[0]) for width in widths)
        self.temporal = nn.ModuleList(
            TCN(settings.channels[0], settings.channels, settings.kernel, settings.dropout, settings.causal)
            for _ in widths
        )
        together = own * len(widths)
        self.question = nn.LayerNorm(together)
        self.attention = nn.ModuleList(
            CrossAttention(together, own, own, settings.heads, settings.attention_reach, settings.causal, offsets=True)
            for _ in widths
        )
        self.norm = nn.LayerNorm(2 * together)
        self.gated = nn.Linear(2 * together, 2 * settings.hidden)
        self.dropout = Dropout(settings.dropout)
        self.head = nn.Linear(2 * together + settings.hidden, outputs)
        self.bound = nn.Tanh() if settings.tanh else nn.Identity()

    def forward(self, features: Sequence[Tensor], valid: Sequence[Tensor], mask: Tensor) -> Tensor:
        """`features` [B, T, D_m], `valid` bool [B, T] of each, `mask` bool [B, T] (no padding) → [B, T, outputs]."""
        real = mask.unsqueeze(1)
        owns, theres = [], []
        for rows, flags, entrance, tcn in zip(features, valid, self.entrance, self.temporal, strict=True):
            there = (flags & mask).unsqueeze(-1)
            entered = entrance(torch.cat([rows.masked_fill(~there, 0), there.to(rows.dtype)], dim=-1))
            owns.append(tcn(entered.transpose(1, 2) * real, real.to(rows.dtype)).transpose(1, 2))
            theres.append(there.squeeze(-1))
        question = self.question(torch.cat(owns, dim=-1))
        answers = [
            attention(question, own, there) for attention, own, there in zip(self.attention, owns, theres, strict=True)
        ]
        known = torch.cat([*owns, *answers], dim=-1)
        plain, gate = self.gated(self.norm(known)).chunk(2, dim=-1)
        fused: Tensor = self.bound(self.head(self.dropout(torch.cat([known, plain * F.gelu(gate)], dim=-1))))
        return fused
