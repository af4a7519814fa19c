"""MFN and MCTN as a straight loop: one `LSTMCell` a modality, every product made at every frame.

Written after the loops of S4's code, over time and without its defects, so that they compute what ours compute; of
windows without padding, all rows valid. Used by heads_speed.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avfuse.fusion.models.mctn import MCTNSettings
from avfuse.fusion.models.mfn import MFNSettings
from avfuse.fusion.models.table import Output


def stepped(cell: nn.LSTMCell, rows: Tensor) -> Tensor:
    """States [B, T, h] of a cell over rows [B, T, D]."""
    state = memory = rows.new_zeros(len(rows), cell.hidden_size)
    states = []
    for t in range(rows.shape[1]):
        state, memory = cell(rows[:, t], (state, memory))
        states.append(state)
    return torch.stack(states, 1)


class BothWays(nn.Module):
    """A cell forwards, and one backwards."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.onward, self.back = nn.LSTMCell(width, hidden), nn.LSTMCell(width, hidden)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, D] → states of both, [B, T, h]."""
        return stepped(self.onward, rows), stepped(self.back, rows.flip(1)).flip(1)


def two_layers(before: int, hidden: int, after: int, dropout: float) -> nn.Sequential:
    """Linear, ReLU, Dropout, Linear."""
    return nn.Sequential(nn.Linear(before, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, after))


class NaiveMFN(nn.Module):
    """The memory fusion network, everything frame by frame."""

    def __init__(self, settings: MFNSettings, shapes: Sequence[tuple[int, ...]], outputs: int) -> None:
        super().__init__()
        self.hidden, self.memory, drop = settings.hidden, settings.memory, settings.dropout
        total, half = len(shapes) * settings.hidden, settings.hidden // 2
        self.cells = nn.ModuleList(nn.LSTMCell(width, settings.hidden) for (width,) in shapes)
        self.attention = two_layers(2 * total, self.hidden, 2 * total, drop)
        self.proposal = two_layers(2 * total, self.hidden, self.memory, drop)
        self.keep = two_layers(2 * total + self.memory, self.hidden, self.memory, drop)
        self.add = two_layers(2 * total + self.memory, self.hidden, self.memory, drop)
        self.fuse = two_layers(total + self.memory, self.hidden, half, drop)
        self.context, self.head = BothWays(half, half), nn.Linear(2 * half, outputs)

    def forward(self, features: Sequence[Tensor], valid: Sequence[Tensor], mask: Tensor) -> Tensor:
        """`features` [B, T, D_m] → [B, T, outputs]."""
        batch, count = mask.shape
        h = [mask.new_zeros(batch, self.hidden, dtype=features[0].dtype) for _ in features]
        c, memory, fused = list(h), mask.new_zeros(batch, self.memory, dtype=features[0].dtype), []
        for t in range(count):
            before = torch.cat(c, 1)
            for number, (cell, rows) in enumerate(zip(self.cells, features, strict=True)):
                h[number], c[number] = cell(rows[:, t], (h[number], c[number]))
            star = torch.cat([before, *c], 1)
            attended = self.attention(star).softmax(1) * star
            both = torch.cat([attended, memory], 1)
            memory = self.keep(both).sigmoid() * memory + self.add(both).sigmoid() * self.proposal(attended).tanh()
            fused.append(self.fuse(torch.cat([*h, memory], 1)))
        rows_out: Tensor = self.head(torch.cat(self.context(torch.stack(fused, 1)), -1))
        return rows_out


class NaiveTranslation(nn.Module):
    """One sequence to another, attention made anew at every frame."""

    def __init__(self, width: int, written: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.encoder, self.dropout = BothWays(width, hidden), nn.Dropout(dropout)
        self.first = nn.Linear(hidden, hidden, bias=False)
        self.attention, self.score = nn.Linear(2 * hidden, hidden, bias=False), nn.Linear(hidden, 1, bias=False)
        self.onward, self.back = (nn.LSTMCell(written + hidden, hidden) for _ in range(2))
        self.frame = nn.Linear(2 * hidden, written)

    def forward(self, rows: Tensor, target: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """`rows` [B, T, D] → what was read [B, T, h], frames written [B, T, E]."""
        onward, back = self.encoder(rows)
        join, state = self.dropout(onward + back), self.first(onward[:, -1] + back[:, 0]).tanh()
        frame, frames = torch.zeros_like(target[:, 0]), []
        for t in range(target.shape[1]):
            asked = torch.cat([state.unsqueeze(1).expand_as(join), join], 2)
            weights = self.score(self.attention(asked).tanh()).softmax(1)
            context = (weights.transpose(1, 2) @ join).squeeze(1)
            read = torch.cat([frame, context], 1)
            state = self.onward(read)[0] + self.back(read)[0]
            frames.append(self.frame(torch.cat([state, context], 1)))
            frame = torch.where(torch.rand(len(rows), 1) < rate, target[:, t], frames[-1])
        return join, torch.stack(frames, 1)


class NaiveMCTN(nn.Module):
    """Translations of the leading modality into the others."""

    def __init__(self, settings: MCTNSettings, shapes: Sequence[tuple[int, ...]], outputs: int) -> None:
        super().__init__()
        self.width, self.settings, hidden = max(width for (width,) in shapes), settings, settings.hidden
        reading = [self.width, *[hidden] * (len(shapes) - 2)]
        self.translations = nn.ModuleList(
            NaiveTranslation(width, self.width, hidden, settings.dropout) for width in reading
        )
        self.context, self.head = BothWays(hidden, hidden), nn.Linear(2 * hidden, outputs)

    def forward(self, features: Sequence[Tensor], valid: Sequence[Tensor], mask: Tensor) -> Output:
        """`features` [B, T, D_m] → [B, T, outputs], and the translations' loss."""
        rows = [F.pad(each, (0, self.width - each.shape[-1])) for each in features]
        rate, join, losses = self.settings.teacher_forcing, rows[0], []
        for number, translation in enumerate(self.translations):
            join, made = translation(join, rows[number + 1], rate)
            losses.append(F.mse_loss(made, rows[number + 1]))
            if number == 0:
                losses.append(F.mse_loss(translation(made, rows[0], rate)[1], rows[0]))
        prediction = self.head(torch.cat(self.context(join), -1))
        return Output(prediction, self.settings.loss_weight * torch.stack(losses).sum())
