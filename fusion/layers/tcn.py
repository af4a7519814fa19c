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


class Block(nn.Module):
    """Two convolutions of one dilation, and a connection around them; `dropout`: the share [0, 1) after each."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, dilation: int, dropout: float, causal: bool
    ) -> None:
        super().__init__()
        reach = (kernel - 1) * dilation
        self.padding = (reach, 0) if causal else (reach // 2, reach - reach // 2)
        self.conv1 = weight_norm(nn.Conv1d(channels_in, channels_out, kernel, dilation=dilation))
        self.conv2 = weight_norm(nn.Conv1d(channels_out, channels_out, kernel, dilation=dilation))
        self.downsample = nn.Conv1d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """[B, in, T] → [B, out, T], with zeros before the first row and (not causal) after the last.

        `mask` [B, 1, T] keeps padding at zero if rows look ahead.
        """
        y = self.dropout(F.leaky_relu(self.conv1(F.pad(x, self.padding)), LEAK))
        y = y if mask is None else y * mask
        y = self.dropout(F.leaky_relu(self.conv2(F.pad(y, self.padding)), LEAK))
        out = F.leaky_relu(y + self.downsample(x), LEAK)
        return out if mask is None else out * mask


class TCN(nn.Module):
    """Levels of dilation 1, 2, 4 …: [B, D, T] → [B, channels[-1], T]; `dropout`: the share [0, 1) in each."""

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

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Rows to rows; `mask` [B, 1, T] is 1 on real rows (default: all), and needed only if not causal."""
        for block in self.network:
            x = block(x, None if self.causal else mask)
        return x


class MultiScaleTCN(nn.Module):
    """Parallel TCNs of several kernels, concatenated: [B, T, D] → [B, T, len(kernels) · channels[-1]].

    `dropout`: the share [0, 1) in each level.
    """

    def __init__(
        self, width: int, channels: Sequence[int], kernels: Sequence[int], dropout: float, causal: bool
    ) -> None:
        super().__init__()
        self.width = len(kernels) * channels[-1]
        self.scales = nn.ModuleList(TCN(width, channels, kernel, dropout, causal) for kernel in kernels)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x` [B, T, D], `mask` bool [B, T] → [B, T, width]."""
        rows, real = x.transpose(1, 2), mask.unsqueeze(1).to(x.dtype)
        return torch.cat([tcn(rows, real) for tcn in self.scales], dim=1).transpose(1, 2)
