"""S4's Memory Fusion Network: an LSTM a modality, attention over their last two cells, a memory with gates.

    each   [T, D_m] ─ LSTM 128 ─┬─ h of each ──────────────────────────────────────────────────────────────┐
                                └─ c of frames t−1 and t, concat 6·128 ─ softmax attention ─ attended ─┐   │
    attended ─ ĉ = tanh(MLP)         [attended; mem] ─ γ1, γ2 = sigmoid(MLP)          mem ← γ1 mem + γ2 ĉ  │
    [h of each; mem] ─ Linear 128 ─ ReLU ─ Dropout ─ Linear 64 ─ BiLSTM 2·64 ─ Linear 2  ◄─────────────────┘

The LSTMs do not know the memory: their cells, the attention and ĉ are made for all frames at once, and only the memory
goes from frame to frame.

Source: docs/sources.md (S4's networks); Zadeh et al. 2018, equations 1–8. Tested by tests/fusion/models/test_s4.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import HeadSettings, check_settings
from ..layers.dropout import Dropout
from ..layers.recurrence import BiLSTM, LSTMs, real_rows
from .table import widths_of


@dataclass(frozen=True)
class MFNSettings(HeadSettings):
    """S4's MFN. Source: docs/sources.md (S4's networks)."""

    hidden: int = 128
    memory: int = 128
    window_dim: int = 2
    dropout: float = 0.5

    def __post_init__(self) -> None:
        check_settings(self, positive=["hidden", "memory", "window_dim"], below_one=["dropout"])
        if self.hidden < 2:
            raise ValueError("hidden 1 has no half; use 2 or more")


class MFN(nn.Module):
    """LSTMs, attention over their cells, a gated memory, an LSTM that reads both ways."""

    def __init__(self, settings: MFNSettings, shapes: Sequence[tuple[int, ...]], outputs: int) -> None:
        super().__init__()
        widths, hidden, memory = widths_of(shapes), settings.hidden, settings.memory
        total = len(widths) * hidden
        self.seen, self.window = settings.window_dim * total, settings.window_dim
        self.temporal = LSTMs(widths, hidden)
        self.attention = self._two_layers(self.seen, hidden, self.seen, settings.dropout)
        self.proposal = self._two_layers(self.seen, hidden, memory, settings.dropout)
        self.gates = nn.ModuleList(
            self._two_layers(self.seen + memory, hidden, memory, settings.dropout) for _ in range(2)
        )
        self.dropout = Dropout(settings.dropout)
        self.fuse = self._two_layers(total + memory, hidden, hidden // 2, settings.dropout)
        self.context = BiLSTM(hidden // 2, hidden // 2)
        self.head = nn.Linear(2 * (hidden // 2), outputs)

    @staticmethod
    def _two_layers(before: int, hidden: int, after: int, dropout: float) -> nn.Sequential:
        return nn.Sequential(nn.Linear(before, hidden), nn.ReLU(), Dropout(dropout), nn.Linear(hidden, after))

    def forward(self, features: Sequence[Tensor], valid: Sequence[Tensor], mask: Tensor) -> Tensor:
        """`features` [B, T, D_m], `valid` bool [B, T] of each, `mask` bool [B, T] (no padding) → [B, T, outputs]."""
        states, cells = (each.transpose(1, 2).flatten(2) for each in self.temporal(real_rows(features, valid, mask)))
        past = F.pad(cells, (0, 0, 0, 0, self.window - 1, 0))  # [T, B, M · hidden], oldest first
        around = torch.cat([past[lag : lag + len(cells)] for lag in range(self.window)], dim=-1)
        attended = self.attention(around).softmax(-1) * around
        remembered = self._remember(attended, self.proposal(attended).tanh())
        fused = self.fuse(torch.cat([states, remembered], dim=-1)).transpose(0, 1)
        rows: Tensor = self.head(torch.cat(self.context(fused, mask), dim=-1))
        return rows

    def _remember(self, attended: Tensor, proposed: Tensor) -> Tensor:
        """The memory after each frame, of what is attended to [T, B, seen] and the proposals [T, B, memory]."""
        first, last = ([gate[at] for gate in self.gates] for at in (0, -1))
        weight = torch.cat([each.weight[:, : self.seen] for each in first])
        given = F.linear(attended, weight, torch.cat([each.bias for each in first]))
        given = given.unflatten(-1, (2, -1)).transpose(1, 2)  # [T, 2, B, hidden]
        dtype = weight.dtype
        kept = self.dropout(given.new_ones(given.shape, dtype=dtype)) if self.training and self.dropout.p else None
        with torch.autocast(given.device.type, enabled=False):
            return _remembered(
                given.to(dtype),
                proposed.to(dtype),
                torch.stack([each.weight[:, self.seen :].t() for each in first]),
                torch.stack([each.weight.t() for each in last]),
                torch.stack([each.bias for each in last]).unsqueeze(1),
                kept,
            )


@torch.compiler.disable
def _remembered(*words: Tensor | None) -> Tensor:
    """Run the steps, not compiled: a compiler would write all of them out."""
    remembered: Tensor = _Memory.apply(*words)  # type: ignore[no-untyped-call]
    return remembered


class _Memory(torch.autograd.Function):
    """mem ← γ1 mem + γ2 ĉ, γ = sigmoid(kept · relu(given + mem · into) · out + bias), both gates in one product.

    given, kept [T, 2, B, h], proposed ĉ [T, B, m], into [2, m, h], out [2, h, m], bias [2, 1, m] → mem [T, B, m].
    """

    @staticmethod
    def forward(
        ctx: Any, given: Tensor, proposed: Tensor, into: Tensor, out: Tensor, bias: Tensor, kept: Tensor | None
    ) -> Tensor:
        count, batch, width = proposed.shape
        memory = proposed.new_zeros(count + 1, batch, width)
        hidden = torch.empty_like(given, memory_format=torch.contiguous_format)
        gates = proposed.new_empty(count, 2, batch, width)
        bias = bias.expand(2, batch, width)
        for t in range(count):
            torch.baddbmm(given[t], memory[t].expand(2, -1, -1), into, out=hidden[t]).relu_()
            if kept is not None:
                hidden[t].mul_(kept[t])
            torch.baddbmm(bias, hidden[t], out, out=gates[t]).sigmoid_()
            torch.mul(gates[t, 0], memory[t], out=memory[t + 1]).addcmul_(gates[t, 1], proposed[t])
        ctx.save_for_backward(memory, hidden, gates, proposed, into, out, kept)
        return memory[1:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        memory, hidden, gates, proposed, into, out, kept = ctx.saved_tensors
        # Of the gates' inputs, by the memory, and of `given`, by the gates' hidden layer; in the loop their gradients.
        by_memory = torch.stack([memory[:-1], proposed], 1) * gates * (1 - gates)
        by_hidden = (hidden > 0).to(hidden.dtype)
        if kept is not None:
            by_hidden *= kept
        of_memory = torch.empty_like(proposed)
        out_back, into_back = out.transpose(1, 2), into.transpose(1, 2)
        carried = torch.zeros_like(memory[0])
        for t in range(len(proposed) - 1, -1, -1):
            grad = torch.add(grads[0][t], carried, out=of_memory[t])
            gate = by_memory[t].mul_(grad)
            first = by_hidden[t].mul_(torch.bmm(gate, out_back))
            carried = torch.addcmul(torch.bmm(first, into_back).sum(0), grad, gates[t, 0])
        return (
            by_hidden,
            of_memory * gates[:, 1],
            torch.einsum("tbm,tkbh->kmh", memory[:-1], by_hidden),
            torch.einsum("tkbh,tkbm->khm", hidden, by_memory),
            by_memory.sum((0, 2)).unsqueeze(1),
            None,
        )
