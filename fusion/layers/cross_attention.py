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

    `reach` frames to either side are attended to, `causal` none that are later; 0: the whole window, as in S1.
    Attention has no notion of time: with a long reach, what is said now is found by its content alone. With `offsets`
    each head learns a number for each offset within reach, which is added to the scores.
    Raises ValueError where `width` is not a multiple of `heads`, or offsets have no reach.
    """

    def __init__(
        self,
        query_width: int,
        key_width: int,
        width: int,
        heads: int,
        reach: int = 0,
        causal: bool = False,
        offsets: bool = False,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"the attention's width {width} is not a multiple of its {heads} heads")
        if offsets and not reach:
            raise ValueError("offsets are learned within a reach: give one above 0")
        self.heads, self.reach, self.causal = heads, reach, causal
        self.offsets = nn.Parameter(torch.zeros(heads, 2 * reach + 1)) if offsets else None
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
        count, reach = valid.shape[1], self.reach
        asked = heard = count  # frames that ask, and frames that may answer them
        if reach:  # blocks of frames, each with its surroundings, are a batch: [B · blocks, heads, frames, d]
            asked, heard = 2 * reach, 4 * reach
            after = -count % asked
            query = F.pad(query, (0, 0, 0, after)).unfold(2, asked, asked).permute(0, 2, 1, 4, 3).flatten(0, 1)
            key, value = (
                F.pad(part, (0, 0, reach, after + reach)).unfold(2, heard, asked).permute(0, 2, 1, 4, 3).flatten(0, 1)
                for part in (key, value)
            )
            valid = F.pad(valid, (reach, after + reach)).unfold(1, heard, asked).flatten(0, 1)
        mask = valid[:, None, None, :]  # which frames a frame may attend to: [B, 1, 1 or asked, heard]
        offset = torch.arange(heard, device=valid.device) - reach - torch.arange(asked, device=valid.device)[:, None]
        if reach:
            mask = mask & (offset.abs() <= reach)
        if self.causal:
            mask = mask & (offset <= 0)
        anything = mask.any(-1, keepdim=True)  # softmax over nothing would be NaN
        allowed = mask | ~anything
        if self.offsets is not None:
            added = self.offsets[:, offset.clamp(-reach, reach) + reach].to(query.dtype)
            allowed = added.masked_fill(~allowed, -torch.inf)
        answer = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        answer = answer * anything.to(answer.dtype)
        if reach:
            answer = answer.reshape(len(asking), -1, *answer.shape[1:]).transpose(1, 2).flatten(2, 3)[:, :, :count]
        return answer.transpose(1, 2).flatten(2)
