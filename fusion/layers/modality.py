"""One modality before it meets the others: its TCN, and batch norm over the frames at which it is real.

    rows [T, D] ─ zeros where it is not real ─ TCN ─ [T, C] ─ batch norm ─ [T, C]
                                                              mean and variance of real frames alone

So neither padding nor rows without a face or a sound change what is computed of the others, in training and after it.

Source: docs/sources.md (LFAN and CAN); batch norm: Ioffe and Szegedy 2015, algorithms 1 and 2.
Tested by tests/fusion/layers/test_modality.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .tcn import TCN

WIDE, NARROW = 512, 128  # numbers per row: from here on wide, below this narrow
_MOMENTUM = 0.1
_EPS = 1e-5


class MaskedBatchNorm(nn.Module):
    """Batch norm of rows [B, T, width], of which some frames are no part; torch's names, momentum and eps.

    Fewer than two real frames have no variance: they are normalised by the running numbers, which stay as they are.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """`x` [B, T, C], `real` bool [B, T] → [B, T, C], all frames normalised by the numbers of the real ones."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))  # sums of bfloat16 lose digits
        mean, variance = self.running_mean, self.running_var
        if self.training:
            weight = real.unsqueeze(-1).to(x.dtype)
            count = weight.sum()
            mean = (x * weight).sum((0, 1)) / count.clamp(min=1)
            variance = ((x - mean) * weight).square().sum((0, 1)) / count.clamp(min=1)
            enough = count >= 2
            with torch.no_grad():
                step = _MOMENTUM * enough.to(x.dtype)
                unbiased = variance * (count / (count - 1).clamp(min=1))
                self.running_mean += step * (mean - self.running_mean)
                self.running_var += step * (unbiased - self.running_var)
            mean = torch.where(enough, mean, self.running_mean)
            variance = torch.where(enough, variance, self.running_var)
        return (x - mean) * torch.rsqrt(variance + _EPS) * self.weight + self.bias


class ModalityTCN(nn.Module):
    """Rows of one modality to normalised rows of its TCN: [B, T, D] → [B, T, channels[-1]].

    `dropout`: as `TCN` has it.
    """

    def __init__(self, width: int, channels: Sequence[int], kernel: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.tcn = TCN(width, channels, kernel, dropout, causal)
        self.bn = MaskedBatchNorm(channels[-1])

    def forward(self, rows: Tensor, valid: Tensor, mask: Tensor) -> Tensor:
        """`rows` [B, T, D], `valid` bool [B, T] (made from real media), `mask` bool [B, T] (no padding)."""
        real = valid & mask
        known = rows.masked_fill(~real.unsqueeze(-1), 0.0)
        found = self.tcn(known.transpose(1, 2), mask.unsqueeze(1).to(rows.dtype))
        normal: Tensor = self.bn(found.transpose(1, 2), real)
        return normal


def channels_by_width(
    widths: Sequence[int], lead: Sequence[int], wide: Sequence[int], other: Sequence[int], narrow: Sequence[int]
) -> list[tuple[int, ...]]:
    """Channels of each modality's TCN: the leading one's, then by the width D of a row.

    `wide` from 512 on (BERT, WavLM), `narrow` below 128 (eGeMAPS 88, MFCC 39), `other` between (VGGish, log-mel 128).
    """
    by_width = (wide if width >= WIDE else narrow if width < NARROW else other for width in widths[1:])
    return [tuple(each) for each in (lead, *by_width)]
