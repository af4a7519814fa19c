"""S4's MCTN: the leading modality is translated into the others; what the translation reads is what predicts.

    lead ─ encoder 1 ─ join 1 ─ decoder 1 ─► 2nd ─ encoder 1 ─ decoder 1 ─► lead          (back again, same weights)
                         └───── encoder 2 ─ join 2 ─ decoder 2 ─► 3rd
                                              └───── encoder 3 ─ join 3 ─ decoder 3 ─► 4th …
    the last join ─ BiLSTM 2·256 ─ Linear 2                  loss + 0.5 · the translations' mean squared errors

    encoder   BiLSTM, both directions added up, Dropout = join; s = tanh(Linear) of the two last states
    decoder   a = softmax(v · tanh(W [s; join])), c = a · join
              s = gates of [the frame before; c], frame = Linear [s; c]

Decoders run in training only: a prediction is made of the leading modality alone.

Source: docs/sources.md (S4's networks); Pham et al. 2019. Tested by tests/fusion/models/test_s4.py.
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
from ..layers.recurrence import BiLSTM, real_rows
from .table import Output, widths_of

# |x| beyond which tanh(x) is ±1 in any format, and below which exp(2 x) and exp(−2 x) are normal float32 numbers.
_SATURATED = 43.0


@dataclass(frozen=True)
class MCTNSettings(HeadSettings):
    """S4's MCTN. Source: docs/sources.md (S4's networks). Raises ValueError on settings out of range."""

    hidden: Annotated[int, "S4's code"] = 256
    dropout: Annotated[float, "S4's code"] = 0.2
    teacher_forcing: Annotated[float, "S4's code"] = 0.3
    loss_weight: Annotated[float, "S4's code"] = 0.5

    def __post_init__(self) -> None:
        check_settings(
            self, positive=["hidden"], not_negative=["loss_weight", "teacher_forcing"], below_one=["dropout"]
        )
        if self.teacher_forcing > 1:
            raise ValueError(f"teacher_forcing must be in [0, 1], got {self.teacher_forcing}")


class MCTN(nn.Module):
    """Translations from the leading modality to each other one, and an LSTM that reads the last encoder both ways.

    Raises ValueError with one modality.
    """

    def __init__(self, settings: MCTNSettings, shapes: Sequence[tuple[int, ...]], outputs: int) -> None:
        super().__init__()
        widths, hidden = widths_of(shapes), settings.hidden
        if len(widths) < 2:
            raise ValueError("mctn translates one modality into others, and needs two or more; see --modalities")
        self.width, self.settings = max(widths), settings
        reading = [self.width, *[hidden] * (len(widths) - 2)]
        self.translations = nn.ModuleList(Translation(width, self.width, hidden, settings.dropout) for width in reading)
        self.context = BiLSTM(hidden, hidden)
        self.head = nn.Linear(2 * hidden, outputs)

    def forward(self, features: Sequence[Tensor], valid: Sequence[Tensor], mask: Tensor) -> Tensor | Output:
        """`features` [B, T, D_m], `valid` bool [B, T] of each, `mask` bool [B, T] (no padding) → [B, T, outputs].

        In training an `Output`, with the translations' weighted loss.
        """
        rows = [F.pad(each, (0, self.width - each.shape[-1])) for each in real_rows(features, valid, mask)]
        there = [each & mask for each in valid]
        join, losses = rows[0], []
        chain: list[Any] = list(self.translations)
        for number, translation in enumerate(chain):
            join, state = translation.encode(join, mask)
            if self.training:
                forced = self._forced(there[number + 1])
                made = translation.decode(join, state, mask, rows[number + 1], forced)
                losses.append(_squared_error(made, rows[number + 1], there[number + 1]))
                if number == 0:  # and back again
                    back, state = translation.encode(made.masked_fill(~mask.unsqueeze(-1), 0.0), mask)
                    made = translation.decode(back, state, mask, rows[0], self._forced(there[0]))
                    losses.append(_squared_error(made, rows[0], there[0]))
        prediction: Tensor = self.head(torch.cat(self.context(join, mask), dim=-1))
        if not self.training:
            return prediction
        return Output(prediction, self.settings.loss_weight * torch.stack(losses).sum())

    def _forced(self, there: Tensor) -> Tensor:
        """At which frames the next step reads the truth, not what was made: a share of those that are there."""
        return (torch.rand(there.shape, device=there.device) < self.settings.teacher_forcing) & there


class Translation(nn.Module):
    """Reads a sequence and writes another of the same length.

    `dropout`: the share [0, 1) of what was read.
    """

    def __init__(self, width: int, written: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.encoder = BiLSTM(width, hidden)
        self.dropout = Dropout(dropout)
        self.first = nn.Linear(hidden, hidden, bias=False)
        self.attention = nn.Linear(2 * hidden, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)
        # Out, into and new of two LSTM cells that begin anew at each step, as one that reads both ways does on one row.
        self.step = nn.Linear(written + hidden, 6 * hidden)
        self.frame = nn.Linear(2 * hidden, written)
        for parameter in self.step.parameters():
            nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)

    def encode(self, rows: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """`rows` [B, T, D], `mask` bool [B, T] → what was read [B, T, hidden], the writer's first state [B, hidden]."""
        onward, back = self.encoder(rows, mask)
        last = mask & ~F.pad(mask, (0, 1))[:, 1:]
        ends = (onward * last.unsqueeze(-1)).sum(1) + back[:, 0]
        join: Tensor = self.dropout(onward + back)
        return join, self.first(ends).tanh()

    def decode(self, join: Tensor, state: Tensor, mask: Tensor, target: Tensor, forced: Tensor) -> Tensor:
        """The frames written of `join` [B, T, hidden]: [B, T, D].

        A step reads the frame before: of `target` [B, T, D] where `forced` bool [B, T], else its own; the first, zeros.
        What it makes of its own frame is linear in its state, so that the loop holds states alone, and all frames are
        written after it.
        """
        dtype = self.step.weight.dtype
        ask, read = self.attention.weight.chunk(2, dim=1)
        frame_in, context_in = self.step.weight[:, : target.shape[-1]], self.step.weight[:, target.shape[-1] :]
        truth = F.pad(target * forced.unsqueeze(-1), (0, 0, 1, 0))[:, :-1]
        free = F.pad((~forced).to(dtype), (1, 0))[:, :-1].t().unsqueeze(-1)
        given = F.linear(truth, frame_in, self.step.bias).transpose(0, 1)
        keys = F.linear(join, read)
        with torch.autocast(join.device.type, enabled=False):
            own = frame_in @ torch.cat([self.frame.weight, self.frame.bias.unsqueeze(1)], dim=1)
            states = _decoded(
                given.to(dtype) + free * own[:, -1],
                free,
                state.to(dtype),
                (2 * keys.to(dtype).clamp(-_SATURATED, _SATURATED)).exp(),
                join.to(dtype),
                torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, -1e30),
                ask.t(),
                self.score.weight.squeeze(0),
                torch.cat([own[:, :-1], context_in], dim=1).t(),
            )
        frames: Tensor = self.frame(states.transpose(0, 1))
        return frames


def _squared_error(made: Tensor, truth: Tensor, there: Tensor) -> Tensor:
    """Mean over the rows that are there, in float32 or above; 0 where none is."""
    error = (made.to(truth.dtype) - truth).square().mean(-1)
    return (error * there).sum() / there.sum().clamp(min=1)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _decoded(*words: Tensor) -> Tensor:
    """Run the steps, not compiled: a compiler would write all of them out."""
    states: Tensor = _Decoder.apply(*words)
    return states


class _Decoder(torch.autograd.Function):
    """The steps of a decoder; [state; context] of each: [T, B, 2 h].

    given [T, B, 6 h] (of the truth), free [T, B, 1] (1: reads its own frame), state [B, h], keys exp(2 K) and join
    [B, S, h], closed [B, S] (large and negative on padding), ask [h, h], score [h], weight [3 h, 6 h] of the step
    before's state and context and of this one's context.

    tanh(K + q) = 1 − 2 / (1 + exp(2 K) exp(2 q)), whose exponentials are taken once: what is left of a step's B · S · h
    numbers is a product and a reciprocal. The 1 adds the same to every score, and softmax does not see it. The way
    back makes these numbers again: kept, they would be B · S · h a step.
    """

    @staticmethod
    def forward(
        ctx: Any,
        given: Tensor,
        free: Tensor,
        state: Tensor,
        keys: Tensor,
        join: Tensor,
        closed: Tensor,
        ask: Tensor,
        score: Tensor,
        weight: Tensor,
    ) -> Tensor:
        count, batch, wide = given.shape
        hidden = wide // 6
        states = given.new_zeros(count + 1, batch, 2 * hidden)
        states[0, :, :hidden] = state
        read = given.new_empty(count, batch, 3 * hidden)
        gates = given.clone(memory_format=torch.contiguous_format)
        attended = given.new_empty(count, *closed.shape)
        asked = given.new_empty(count, batch, 1, hidden)
        one, folded, flat = given.new_ones(()), torch.empty_like(keys), closed.flatten()
        both, step, gate = states.unbind(), read.unbind(), gates.unbind()
        only = states[:, :, :hidden].unbind()
        past, now = (part.unbind() for part in read.tensor_split([2 * hidden], -1))
        open_, new = (part.unbind() for part in gates.tensor_split([4 * hidden], -1))
        twice = 2 * ask
        for t in range(count):
            torch.exp(only[t] @ twice, out=asked[t, :, 0])
            torch.addcmul(one, keys, asked[t], out=folded).reciprocal_()
            scores = torch.addmv(flat, folded.flatten(0, 1), score, alpha=-2)
            torch.softmax(scores.view(closed.shape), -1, out=attended[t])
            context = torch.bmm(attended[t].unsqueeze(1), join).squeeze(1)
            torch.mul(both[t], free[t], out=past[t])
            now[t].copy_(context)
            gate[t].addmm_(step[t], weight)
            out, into = open_[t].sigmoid_().chunk(2, -1)
            cell = (into * new[t].tanh_()).tanh_().mul_(out)
            torch.add(*cell.chunk(2, -1), out=only[t + 1])
            both[t + 1][:, hidden:] = context
        ctx.save_for_backward(states, read, gates, attended, asked, free, keys, join, ask, score, weight)
        return states[1:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        states, read, gates, attended, asked, free, keys, join, ask, score, weight = ctx.saved_tensors
        hidden = join.shape[-1]
        out, into, new = gates.chunk(3, -1)
        squashed = (into * new).tanh_()
        through = out * (1 - squashed * squashed)
        # Of the gates' inputs, by the state; in the loop it becomes their gradient.
        gate = torch.cat(
            [squashed * out * (1 - out), through * new * into * (1 - into), through * into * (1 - new * new)], -1
        )
        by_state = gate.view(*gate.shape[:2], 6, -1)
        of_context, of_asked = torch.empty_like(states[1:, :, :hidden]), torch.empty_like(asked)
        of_score, of_keys = torch.zeros_like(asked[0]), torch.zeros_like(keys)
        one, folded, slope = keys.new_ones(()), torch.empty_like(keys), torch.empty_like(keys)
        weight_back, ask_back = weight.t(), ask.t()
        carried = torch.zeros_like(states[0])
        for t in range(len(gate) - 1, -1, -1):
            grad = grads[0][t] + carried
            by_state[t].mul_(grad[:, None, :hidden])
            before = gate[t] @ weight_back
            context = torch.add(grad[:, hidden:], before[:, 2 * hidden :], out=of_context[t])
            by_weight = torch.bmm(join, context.unsqueeze(-1)).squeeze(-1)
            scores = attended[t] * (by_weight - (by_weight * attended[t]).sum(-1, keepdim=True))
            torch.addcmul(one, keys, asked[t], out=folded).reciprocal_()
            torch.addcmul(folded, folded, folded, value=-1, out=slope)  # a quarter of tanh'
            of_score += torch.bmm(scores.unsqueeze(1), folded)
            of_keys.addcmul_(scores.unsqueeze(-1), slope)
            torch.mul(torch.bmm(scores.unsqueeze(1), slope), 4 * score, out=of_asked[t])
            carried = before[:, : 2 * hidden] * free[t]
            carried[:, :hidden] += of_asked[t, :, 0] @ ask_back
        return (
            gate,
            None,
            carried[:, :hidden],
            of_keys * (2 * score) / keys,  # of K it is 4 · score, and K is half the logarithm of a key
            torch.einsum("tbs,tbh->bsh", attended, of_context),
            None,
            torch.einsum("tbh,tbg->hg", states[:-1, :, :hidden], of_asked.squeeze(2)),
            -2 * of_score.sum((0, 1)),
            torch.einsum("tbx,tbg->xg", read, gate),
        )
