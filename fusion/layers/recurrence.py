"""Recurrences over windows: LSTMs that step side by side, and one that reads both ways.

    rows of each [B, T, D_m] ─ one product a modality for all steps ─┐
    step t:   gates = projected_t + h W      all LSTMs in one batched product
              c = keep · c + into · new,  h = out · tanh(c)          nine kernels a step, five on the way back

The way back is written out: nothing is recorded a step, and the weights' gradients are one product for all steps.
Numbers and weights are those of `torch.nn.LSTMCell`; under autocast the steps stay in float32.
Source: Hochreiter and Schmidhuber 1997, with the gates of `torch.nn.LSTMCell`.
Tested by tests/fusion/layers/test_recurrence.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LSTMs(nn.Module):
    """One LSTM a modality, all of one width, each over rows [B, T, D_m] of its own; an `LSTMCell`'s weights each."""

    twice: Tensor

    def __init__(self, widths: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.cells = nn.ModuleList(nn.LSTMCell(width, hidden) for width in widths)
        factors = torch.ones(4, hidden, 1)
        factors[3] = 2
        self.register_buffer("twice", factors.flatten(0, 1), persistent=False)

    def forward(self, rows: Sequence[Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`rows` [B, T, D_m] of each of M → states and cells, [M, T, B, hidden] each.

        `mask` bool [M, T, B]: other rows let nothing in, so that the state is zero until the first of these.
        """
        projected, weights = [], []
        lstms: list[Any] = list(self.cells)
        for cell, each in zip(lstms, rows, strict=True):
            weight, bias = self._ordered(cell.weight_ih), self._ordered((cell.bias_ih + cell.bias_hh)[:, None])
            projected.append(F.linear(each.transpose(0, 1), weight, bias.squeeze(1)))
            weights.append(self._ordered(cell.weight_hh).t())
        weight = torch.stack(weights)
        with torch.autocast(weight.device.type, enabled=False):
            found: tuple[Tensor, Tensor] = _stepped(weight, mask, *(each.to(weight.dtype) for each in projected))
        return found

    def _ordered(self, weight: Tensor) -> Tensor:
        """Rows of torch's gates i, f, g, o as o, i, f, g; those of g twice, as tanh(x) = 2 sigmoid(2 x) − 1."""
        into, keep, new, out = weight.chunk(4)
        return torch.cat([out, into, keep, new]) * self.twice


class BiLSTM(nn.Module):
    """An LSTM over the real rows of a window and one over the same rows backwards."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.directions = LSTMs([width, width], hidden)

    def forward(self, rows: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """`rows` [B, T, D], `mask` bool [B, T], real rows first → states forwards and backwards, [B, T, hidden] each.

        The backward one begins at the last real row: padding is not read.
        """
        both = torch.stack([mask.t(), mask.flip(1).t()])
        states, _ = self.directions([rows, rows.flip(1)], both)
        onward, back = states
        return onward.transpose(0, 1), back.flip(0).transpose(0, 1)


def real_rows(features: Sequence[Tensor], valid: Sequence[Tensor], mask: Tensor) -> list[Tensor]:
    """Features with zeros (the mean of standardised ones) where rows are padding or were not made from real media.

    `features` [B, T, D_m] and `valid` bool [B, T] of each modality, `mask` bool [B, T]: no padding.
    """
    return [rows.masked_fill(~(there & mask).unsqueeze(-1), 0.0) for rows, there in zip(features, valid, strict=True)]


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _stepped(*words: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run the steps, not compiled: a compiler would write all of them out."""
    states, cells = _Steps.apply(*words)
    return states, cells


class _Steps(torch.autograd.Function):
    """The steps of M LSTMs: weight [M, h, 4 h], mask [M, T, B], M times projected [T, B, 4 h] → both [M, T, B, h].

    Gates are out, into, keep, new; the numbers of `new` come in twice as large.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor | None, *projected: Tensor) -> tuple[Tensor, Tensor]:
        gates = torch.stack(projected)
        parts = gates.chunk(4, -1)
        if mask is not None:  # a gate that lets nothing in; nothing comes back through it either
            parts[1].masked_fill_(~mask.unsqueeze(-1), -torch.inf)
        many, count, batch, wide = gates.shape
        cells = gates.new_zeros(many, count + 1, batch, wide // 4)
        states = torch.zeros_like(cells)
        minus_one = gates.new_full((), -1.0)
        cell, state = cells.unbind(1), states.unbind(1)
        steps = zip(*(part.unbind(1) for part in (gates, *parts)), strict=True)
        for t, (gate, out, into, keep, new) in enumerate(steps):
            gate.baddbmm_(state[t], weight).sigmoid_()
            torch.add(minus_one, new, alpha=2, out=new)  # tanh: torch's own takes six times as long on the CPU
            torch.mul(keep, cell[t], out=cell[t + 1]).addcmul_(into, new)
            torch.addcmul(-out, out, (2 * cell[t + 1]).sigmoid_(), value=2, out=state[t + 1])
        ctx.save_for_backward(gates, cells, states, weight)
        ctx.set_materialize_grads(False)
        return states[:, 1:], cells[:, 1:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        gates, cells, states, weight = ctx.saved_tensors
        out, into, keep, new = gates.chunk(4, -1)
        many, count, batch, _ = gates.shape
        of_states = torch.zeros_like(cells[:, 1:]) if grads[0] is None else grads[0]
        of_cells = None if grads[1] is None else grads[1].unbind(1)
        squashed = (2 * cells[:, 1:]).sigmoid_().mul_(2).sub_(1)
        through = torch.addcmul(out, squashed * squashed, out, value=-1).unbind(1)
        # Of a gate's input: by the state for `out`, by the cell for the others; in the loop it becomes their gradient.
        gate = torch.addcmul(gates, gates, gates, value=-1)
        for part, factor in zip(gate.chunk(4, -1)[:3], (squashed, new, cells[:, :-1]), strict=True):
            part.mul_(factor)
        torch.addcmul(into, into, new * new, value=-1, out=gate.chunk(4, -1)[3]).div_(2)
        by_state, by_cell = (part.unbind(1) for part in gate.view(many, count, batch, 4, -1).tensor_split([1], -2))
        steps, before, kept, back = gate.unbind(1), of_states.unbind(1), keep.unbind(1), weight.transpose(1, 2)
        grad, carried = before[-1], torch.zeros_like(before[0]) if of_cells is None else of_cells[-1]
        for t in range(len(steps) - 1, -1, -1):
            cell = torch.addcmul(carried, grad, through[t])
            by_state[t].mul_(grad.unsqueeze(-2))
            by_cell[t].mul_(cell.unsqueeze(-2))
            if t:
                grad = torch.baddbmm(before[t - 1], steps[t], back)
                carried = cell * kept[t] if of_cells is None else torch.addcmul(of_cells[t - 1], cell, kept[t])
        return torch.einsum("mtbh,mtbg->mhg", states[:, :-1], gate), None, *gate.unbind()
