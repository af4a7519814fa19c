"""Dropout that draws its masks four at a time where torch would draw one by one.

On the CPU torch's Bernoulli generator is serial and took a seventh of a training step; this one makes four masks of
16 bits from one 64-bit random number. On other devices it is torch's own. Source: Srivastava et al. 2014, scaled in
training as torch has it.
Tested by tests/fusion/layers/test_dropout.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEVELS = 1 << 16


class Dropout(nn.Dropout):
    """Zero a share `p` of the numbers, to within 1/131072, and scale the others by 1 / (1 - p)."""

    def forward(self, input: Tensor) -> Tensor:
        """Numbers [...] of any shape to the same; the identity in evaluation."""
        x = input
        if not self.training or not self.p:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        dropped = round(self.p * _LEVELS)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        level = bits.view(torch.int16)[: x.numel()].view(x.shape)
        kept = (level >= dropped - _LEVELS // 2).to(x.dtype)
        return x * kept.mul_(_LEVELS / (_LEVELS - dropped))
