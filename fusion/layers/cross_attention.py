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

    `reach` frames to either side are attended to; 0: the whole window, as in S1. Attention has no notion of time: with
    a long reach, what is said now is found by its content alone.
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
        """`asking` [B, T, Q], `answering` [B, T, K], `valid` bool [B, T] (frames that can answer) → [B, T, width].

        Frames that are not valid are never attended to; a frame that reaches no valid one is answered by zeros.
        """
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(asking), self.key(answering), self.value(answering))
        )
        mask = valid[:, None, None, :]  # which frames a frame may attend to: [B, 1, 1 or T, T]
        if self.reach:
            frame = torch.arange(valid.shape[1], device=valid.device)
            mask = mask & ((frame - frame[:, None]).abs() <= self.reach)
        anything = mask.any(-1, keepdim=True)  # softmax over nothing would be NaN
        answer = F.scaled_dot_product_attention(query, key, value, attn_mask=mask | ~anything)
        answer = answer * anything.to(answer.dtype)
        return answer.transpose(1, 2).flatten(2)
