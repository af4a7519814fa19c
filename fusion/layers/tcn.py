"""Temporal convolutions: the causal TCN of the ABAW lineage, and three of them in parallel.

    level i: dilation 2^i, two convolutions of kernel k             receptive field of L levels:
    t-2·2^i   t-2^i   t                                             1 + 2 (k - 1) (2^L - 1) frames
       └────────┴─────┴──► row t, from rows ≤ t only                k = 3, 5, 7 and L = 4: 61, 121, 181

Source: docs/sources.md (TCN): ABAW3's TemporalConvNet, the same numbers; its keys `network.{i}.conv1.weight_g` … load.
Tested by tests/fusion/layers/test_tcn.py and tests/parity/test_tcn.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from .dropout import Dropout

LEAK = 0.01


class DilatedConv(nn.Conv1d):
    """Convolution over time that keeps the length: [B, in, T] → [B, out, T]."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, dilation: int, causal: bool) -> None:
        super().__init__(channels_in, channels_out, kernel, dilation=dilation)
        reach = (kernel - 1) * dilation
        self.around = (reach, 0) if causal else (reach // 2, reach - reach // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve; rows before the first and (not causal) after the last are zeros."""
        return super().forward(F.pad(x, self.around))


class Block(nn.Module):
    """Two convolutions of one dilation and the way around them."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, dilation: int, dropout: float, causal: bool
    ) -> None:
        super().__init__()
        self.conv1 = weight_norm(DilatedConv(channels_in, channels_out, kernel, dilation, causal))
        self.conv2 = weight_norm(DilatedConv(channels_out, channels_out, kernel, dilation, causal))
        self.downsample = nn.Conv1d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, inside: Tensor | None) -> Tensor:
        """[B, in, T] → [B, out, T]; `inside` [B, 1, T] keeps padding at zero where rows look ahead."""
        y = self.dropout(F.leaky_relu(self.conv1(x), LEAK))
        y = self.dropout(F.leaky_relu(self.conv2(y if inside is None else y * inside), LEAK))
        out = F.leaky_relu(y + self.downsample(x), LEAK)
        return out if inside is None else out * inside


class TCN(nn.Module):
    """Levels of dilation 1, 2, 4 …: [B, D, T] → [B, channels[-1], T]."""

    def __init__(
        self, width: int, channels: Sequence[int], kernel: int, dropout: float = 0.1, causal: bool = True
    ) -> None:
        super().__init__()
        self.causal = causal
        widths = [width, *channels]
        self.network = nn.ModuleList(
            Block(before, after, kernel, 2**level, dropout, causal)
            for level, (before, after) in enumerate(zip(widths, channels, strict=False))
        )

    def forward(self, x: Tensor, inside: Tensor | None = None) -> Tensor:
        """Rows to rows; `inside` [B, 1, T] is 1 on real rows (default: all), needed only when not causal."""
        mask = None if self.causal else inside
        for block in self.network:
            x = block(x, mask)
        return x


class MultiScaleTCN(nn.Module):
    """Parallel TCNs of several kernels, concatenated: [B, T, D] → [B, T, len(kernels) · channels[-1]]."""

    def __init__(
        self, width: int, channels: Sequence[int], kernels: Sequence[int], dropout: float, causal: bool
    ) -> None:
        super().__init__()
        self.width = len(kernels) * channels[-1]
        self.scales = nn.ModuleList(TCN(width, channels, kernel, dropout, causal) for kernel in kernels)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """`x` [B, T, D], `inside` bool [B, T] → [B, T, width]."""
        rows, mask = x.transpose(1, 2), inside.unsqueeze(1).to(x.dtype)
        return torch.cat([tcn(rows, mask) for tcn in self.scales], dim=1).transpose(1, 2)
