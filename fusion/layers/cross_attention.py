"""Cross-attention over time: one modality asks, another answers.

Source: S1's formula; projections and heads: docs/sources.md (Cross-attention).
Tested by tests/fusion/layers/test_cross_attention.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CrossAttention(nn.Module):
    """softmax(Q Kᵀ / √d) V over the frames of a window: query of one modality, key and value of another.

    `reach` frames to either side are attended to, 0: the whole window, as in S1. Attention has no notion of time:
    what is said now is found by its content alone, unless the reach is short.
    """

    def __init__(self, query_width: int, key_width: int, width: int, heads: int, reach: int = 0) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"the attention's width {width} is not a multiple of its {heads} heads")
        self.heads, self.reach = heads, reach
        self.query = nn.Linear(query_width, width)
        self.key = nn.Linear(key_width, width)
        self.value = nn.Linear(key_width, width)

    def forward(self, asking: Tensor, answering: Tensor, valid: Tensor) -> Tensor:
        """`asking` [B, T, Q], `answering` [B, T, K], `valid` bool [B, T] (answers there are) → [B, T, width].

        Frames that are not valid are never attended to; a frame that reaches no valid one is answered by zeros.
        """
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(asking), self.key(answering), self.value(answering))
        )
        mask = self._mask(valid)
        anything = mask.any(-1, keepdim=True)  # softmax over nothing would be NaN
        answer = F.scaled_dot_product_attention(query, key, value, attn_mask=mask | ~anything)
        answer = answer * anything.to(answer.dtype)
        return answer.transpose(1, 2).flatten(2)

    def _mask(self, valid: Tensor) -> Tensor:
        """Which frames a frame may attend to, bool [B, 1, 1 or T, T]."""
        mask = valid[:, None, None, :]
        if not self.reach:
            return mask
        frame = torch.arange(valid.shape[1], device=valid.device)
        return mask & ((frame - frame[:, None]).abs() <= self.reach)
