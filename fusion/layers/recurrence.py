"""Recurrences over windows: LSTMs that step side by side, and one that reads both ways.

    rows of each [B, T, D_m] ─ one product a modality for all steps ─┐
    step t:   gates = projected_t + h W      all LSTMs in one batched product
              c = keep · c + into · new,  h = out · tanh(c)          nine kernels a step, five on the way back

The way back is written out, so that nothing is recorded a step and the weights' gradients are one product for all steps.
Numbers and weights are those of `torch.nn.LSTMCell`; under autocast the steps stay in float32.
Tested by tests/fusion/layers/test_recurrence.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LSTMs(nn.Module):
    """One LSTM a modality, all of one width, each over rows of its own; the same weights as an `LSTMCell` each."""

    twice: Tensor

    def __init__(self, widths: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.cells = nn.ModuleList(nn.LSTMCell(width, hidden) for width in widths)
        factors = torch.ones(4, hidden, 1)
        factors[3] = 2
        self.register_buffer("twice", factors.flatten(0, 1), persistent=False)

    def forward(self, rows: Sequence[Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`rows` [B, T, D_m] of each of M → states and cells, [T, M, B, hidden] each.

        `mask` bool [T, M, B]: other rows let nothing in, so that the state is zero until the first of these.
        """
        projected, weights = [], []
        for cell, each in zip(self.cells, rows, strict=True):
            weight, bias = self._ordered(cell.weight_ih), self._ordered((cell.bias_ih + cell.bias_hh)[:, None])
            projected.append(F.linear(each.transpose(0, 1), weight, bias.squeeze(1)))
            weights.append(self._ordered(cell.weight_hh).t())
        steps, weight = torch.stack(projected, 1), torch.stack(weights)
        with torch.autocast(steps.device.type, enabled=False):
            steps = steps.to(weight.dtype)
            if mask is not None:
                closed = torch.zeros(4, dtype=torch.bool, device=steps.device)
                closed[1] = True
                shut = ~mask[..., None, None] & closed[:, None]
                steps = steps.unflatten(-1, (4, -1)).masked_fill(shut, -torch.inf).flatten(-2)
            return _stepped(steps, weight)

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
        both = torch.stack([mask.t(), mask.flip(1).t()], 1)
        states, _ = self.directions([rows, rows.flip(1)], both)
        ahead, back = states.unbind(1)
        return ahead.transpose(0, 1), back.flip(0).transpose(0, 1)


def real_rows(features: Sequence[Tensor], valid: Sequence[Tensor], mask: Tensor) -> list[Tensor]:
    """Features with zeros (the mean of standardised ones) where rows are padding or were not made from real media."""
    return [rows.masked_fill(~(there & mask).unsqueeze(-1), 0.0) for rows, there in zip(features, valid, strict=True)]


@torch.compiler.disable
def _stepped(projected: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Run the steps, not compiled: a compiler would write all of them out."""
    states, cells = _Steps.apply(projected, weight)  # type: ignore[no-untyped-call]
    return states, cells


class _Steps(torch.autograd.Function):
    """The steps of M LSTMs: projected [T, M, B, 4 h], weight [M, h, 4 h] → states, cells [T, M, B, h].

    Gates are out, into, keep, new; the numbers of `new` come in twice as large.
    """

    @staticmethod
    def forward(ctx: Any, projected: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        count, many, batch, wide = projected.shape
        gates = torch.empty_like(projected)
        cells = projected.new_zeros(count + 1, many, batch, wide // 4)
        states = torch.zeros_like(cells)
        minus_one = projected.new_full((), -1.0)
        parts = zip(*(part.unbind() for part in (projected, gates, *gates.chunk(4, -1))), strict=True)
        cell, state = cells.unbind(), states.unbind()
        for t, (given, gate, out, into, keep, new) in enumerate(parts):
            torch.baddbmm(given, state[t], weight, out=gate).sigmoid_()
            torch.add(
                minus_one, new, alpha=2, out=new
            )  # on the CPU torch's tanh takes six times as long as its sigmoid
            torch.mul(keep, cell[t], out=cell[t + 1]).addcmul_(into, new)
            torch.addcmul(-out, out, (2 * cell[t + 1]).sigmoid_(), value=2, out=state[t + 1])
        ctx.save_for_backward(gates, cells, states, weight)
        ctx.set_materialize_grads(False)
        return states[1:], cells[1:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor, Tensor]:
        gates, cells, states, weight = ctx.saved_tensors
        out, into, keep, new = gates.chunk(4, -1)
        of_states, of_cells = (torch.zeros_like(cells[1:]) if grad is None else grad for grad in grads)
        squashed = (2 * cells[1:]).sigmoid_().mul_(2).sub_(1)
        through = out * (1 - squashed * squashed)
        # Of a gate's input: by the state for `out`, by the cell for the others; in the loop it becomes their gradient.
        gate = torch.cat(
            [
                squashed * out * (1 - out),
                new * into * (1 - into),
                cells[:-1] * keep * (1 - keep),
                into * (1 - new * new) / 2,
            ],
            -1,
        )
        by_state, by_cell = gate.unflatten(-1, (4, -1)).split([1, 3], -2)
        back = weight.transpose(1, 2)
        grad, carried = of_states[-1], of_cells[-1]
        for t in range(len(gate) - 1, -1, -1):
            cell = torch.addcmul(carried, grad, through[t])
            by_state[t].mul_(grad.unsqueeze(-2))
            by_cell[t].mul_(cell.unsqueeze(-2))
            if t:
                grad = torch.baddbmm(of_states[t - 1], gate[t], back)
                carried = torch.addcmul(of_cells[t - 1], cell, keep[t])
        return gate, torch.einsum("tmbh,tmbg->mhg", states[:-1], gate)
