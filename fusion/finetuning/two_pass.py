"""A backbone's rows for a step, and its gradients, with the memory of one micro-batch instead of that of all rows.

    first pass    views ─ inputs ─ prefix ─┬─ suffix ─► rows        without gradients, micro-batch by micro-batch
                                           └─ kept
                  rows ─ head ─ loss, back to the rows: one gradient a row
    second pass                 kept ─ suffix ─► rows, back through the suffix from the gradients of the rows

The second pass repeats the first one's numbers, dropout too, so the gradients are those of one pass over all rows.
Source: docs/sources.md (Fine-tuning). Tested by tests/fusion/finetuning/test_two_pass.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...encoders.contract import Precision
from ..data.runtime import autocast
from .backbones import Backbone


@dataclass
class TwoPass:
    """One step of a backbone of which `released` groups learn; `take(begin, end)` gives the views [n, ...] of rows.

    `rows_at_once`: of a micro-batch. What the prefix gives is kept between the passes, in the precision of the run;
    where nothing is frozen before the suffix the views are taken again instead.
    """

    backbone: Backbone
    released: int
    take: Callable[[int, int], Tensor]
    count: int
    rows_at_once: int
    precision: Precision
    device: torch.device
    _kept: list[Tensor | None] = field(default_factory=list)
    _drawn: list[Tensor] = field(default_factory=list)

    def rows(self) -> Tensor:
        """The first pass: rows float32 [N, dim] of all `count` views, without gradients."""
        prefix, suffix = self.backbone.split(self.released)
        parts = [torch.zeros(0, self.backbone.dim, device=self.device)]
        with torch.no_grad():
            for begin in range(0, self.count, self.rows_at_once):
                with autocast(self.device, self.precision):
                    inputs = self.backbone.inputs(self.take(begin, min(begin + self.rows_at_once, self.count)))
                    shared = prefix(inputs)
                    self._drawn.append(_draws(self.device))
                    parts.append(suffix(shared).float())
                self._kept.append(None if shared is inputs or not self.released else shared)
        return torch.cat(parts)

    def carry_on(self, gradients: Tensor) -> None:
        """The second pass: add to the gradients of what is released, given those of the rows [N, dim]."""
        if not self.released:
            return
        _, suffix = self.backbone.split(self.released)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            for at, begin in enumerate(range(0, self.count, self.rows_at_once)):
                end = min(begin + self.rows_at_once, self.count)
                shared, self._kept[at] = self._kept[at], None
                _draw_again(self.device, self._drawn[at])
                with autocast(self.device, self.precision):
                    rows = suffix(self.backbone.inputs(self.take(begin, end)) if shared is None else shared)
                rows.float().backward(gradients[begin:end])  # type: ignore[no-untyped-call]


def _draws(device: torch.device) -> Tensor:
    """Where the random numbers of a device stand."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _draw_again(device: torch.device, state: Tensor) -> None:
    """Let the random numbers of a device go on from there."""
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
