"""S4's Memory Fusion Network: an LSTM a modality, attention over their last two cells, a memory with gates.

    each   [T, D_m] ─ LSTM 128 ─┬─ h of each ──────────────────────────────────────────────────────────────┐
                                └─ c of frames t−1 and t, concat 6·128 ─ softmax attention ─ attended ─┐   │
    attended ─ ĉ = tanh(MLP)         [attended; mem] ─ γ1, γ2 = sigmoid(MLP)          mem ← γ1 mem + γ2 ĉ  │
    [h of each; mem] ─ Linear 128 ─ ReLU ─ Dropout ─ Linear 64 ─ BiLSTM 2·64 ─ Linear 2  ◄─────────────────┘

The LSTMs do not know the memory: their cells, the attention and ĉ are made for all frames at once, and only the memory
goes from frame to frame.

Source: docs/sources.md (S4's networks); Zadeh et al. 2018. Tested by tests/fusion/models/test_s4.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import HeadSettings, check_settings
from ..layers.dropout import Dropout
from ..layers.recurrence import BiLSTM, LSTMs, real_rows
from .table import widths_of


@dataclass(frozen=True)
class MFNSettings(HeadSettings):
    """S4's MFN. Source: docs/sources.md (S4's networks). Raises ValueError on settings out of range."""

    hidden: Annotated[int, "S4's code"] = 128
    memory: Annotated[int, "S4's code"] = 128
    window_dim: Annotated[int, "S4's code"] = 2
    dropout: Annotated[float, "S4's code"] = 0.5

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
        states, cells = (torch.cat(list(each), -1) for each in self.temporal(real_rows(features, valid, mask)))
        past = F.pad(cells, (0, 0, 0, 0, self.window - 1, 0))  # [T, B, M · hidden], oldest first
        around = torch.cat([past[lag : lag + len(cells)] for lag in range(self.window)], dim=-1)
        remembered = self._remember(self.attention(around).softmax(-1) * around)
        fused = self.fuse(torch.cat([states, remembered], dim=-1)).transpose(0, 1)
        rows: Tensor = self.head(torch.cat(self.context(fused, mask), dim=-1))
        return rows

    def _remember(self, attended: Tensor) -> Tensor:
        """The memory [T, B, memory] after each frame, of what is attended to [T, B, seen]."""
        gates: list[Any] = list(self.gates)
        first, last = ([gate[at] for gate in gates] for at in (0, -1))
        readers: list[Any] = [self.proposal[0], *first]  # all that read what is attended to, in one product
        weight = torch.cat([each.weight[:, : self.seen] for each in readers])
        read = F.linear(attended, weight, torch.cat([each.bias for each in readers]))
        hidden = len(weight) // 3
        proposed, given = self.proposal[1:](read[..., :hidden]).tanh(), read[..., hidden:]
        dtype = weight.dtype
        kept = self.dropout(given.new_ones(given.shape, dtype=dtype)) if self.training and self.dropout.p else None
        with torch.autocast(given.device.type, enabled=False):
            memory: Tensor = _remembered(
                given.to(dtype),
                proposed.to(dtype),
                torch.cat([each.weight[:, self.seen :] for each in first]).t(),
                torch.stack([each.weight.t() for each in last]),
                torch.stack([each.bias for each in last]).unsqueeze(1),
                kept,
            )
        return memory


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _remembered(*words: Tensor | None) -> Tensor:
    """Run the steps, not compiled: a compiler would write all of them out."""
    remembered: Tensor = _Memory.apply(*words)
    return remembered


class _Memory(torch.autograd.Function):
    """mem ← γ1 mem + γ2 ĉ, γ = sigmoid(kept · relu(given + mem · into) · out + bias), both gates side by side.

    given, kept [T, B, 2 h], proposed ĉ [T, B, m], into [m, 2 h], out [2, h, m], bias [2, 1, m] → mem [T, B, m].
    """

    @staticmethod
    def forward(
        ctx: Any, given: Tensor, proposed: Tensor, into: Tensor, out: Tensor, bias: Tensor, kept: Tensor | None
    ) -> Tensor:
        count, batch, width = proposed.shape
        memories = proposed.new_zeros(count + 1, batch, width)
        hidden = given.clone(memory_format=torch.contiguous_format)
        gates = bias.expand(count, 2, batch, width).contiguous()
        memory, first, second = memories.unbind(), hidden.unbind(), gates.unbind()
        halves = hidden.view(count, batch, 2, -1).transpose(1, 2).unbind()
        keep, add, new = gates[:, 0].unbind(), gates[:, 1].unbind(), proposed.unbind()
        dropped = None if kept is None else kept.unbind()
        for t in range(count):
            first[t].addmm_(memory[t], into).relu_()
            if dropped is not None:
                first[t].mul_(dropped[t])
            second[t].baddbmm_(halves[t], out).sigmoid_()
            torch.mul(keep[t], memory[t], out=memory[t + 1]).addcmul_(add[t], new[t])
        ctx.save_for_backward(memories, hidden, gates, proposed, into, out, kept)
        return memories[1:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        memories, hidden, gates, proposed, into, out, kept = ctx.saved_tensors
        # Of the gates' inputs, by the memory, and of `given`, by the gates' hidden layer; in the loop their gradients.
        by_memory = torch.addcmul(gates, gates, gates, value=-1).mul_(torch.stack([memories[:-1], proposed], 1))
        by_hidden = (hidden > 0).to(hidden.dtype) if kept is None else kept.masked_fill(hidden <= 0, 0.0)
        gate, first = by_memory.unbind(), by_hidden.unbind()
        halves, keep = by_hidden.unflatten(-1, (2, -1)).transpose(1, 2).unbind(), gates[:, 0].unbind()
        of_memory = torch.empty_like(proposed)
        whole, given_grads = of_memory.unbind(), grads[0].unbind()
        out_back, into_back = out.transpose(1, 2), into.t()
        carried = torch.zeros_like(memories[0])
        for t in range(len(gate) - 1, -1, -1):
            grad = torch.add(given_grads[t], carried, out=whole[t])
            gate[t].mul_(grad)
            halves[t].mul_(torch.bmm(gate[t], out_back))
            carried = torch.mm(first[t], into_back).addcmul_(grad, keep[t])
        return (
            by_hidden,
            of_memory * gates[:, 1],
            memories[:-1].flatten(0, 1).t() @ by_hidden.flatten(0, 1),
            torch.einsum("tbkh,tkbm->khm", hidden.unflatten(-1, (2, -1)), by_memory),
            by_memory.sum((0, 2)).unsqueeze(1),
            None,
        )
