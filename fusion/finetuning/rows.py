"""Views to a backbone's rows: cut and mirrored once a window to train on, as `extract` makes them to evaluate.

    stored 48 px   ┌────────────┐    a window's own place among 9 × 9, the same for all its frames, half of them
                   │ ┌────────┐ │    mirrored; in evaluation the middle, not mirrored
                   │ │ 40 px  │ │
                   │ └────────┘ │    faces of 112 px are only mirrored
                   └────────────┘

Source: docs/sources.md (Windows, Fine-tuning). Tested by tests/fusion/finetuning/test_rows.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...encoders.contract import Precision
from ..config import FinetuneConfig
from ..data.dataset import Dataset
from ..data.runtime import autocast
from ..data.views import PatchTable, empty_rows, take_rows
from ..data.windows import ResidentRows, Windows
from .backbones import Backbone

CROP = "crop48"  # of the views the one that is larger than what networks take


@dataclass(frozen=True)
class Augmentation:
    """How the faces of each of B windows are cut: the first `row` and `column`, int64 [B], and whether `mirrored`.

    `px`: the side of what is cut out.
    """

    row: Tensor
    column: Tensor
    mirrored: Tensor
    px: int

    def to(self, device: torch.device) -> Augmentation:
        """The same on a device."""
        return Augmentation(self.row.to(device), self.column.to(device), self.mirrored.to(device), self.px)

    def cut(self, faces: Tensor, window: Tensor) -> Tensor:
        """Faces uint8 [n, px, px, 3] out of larger ones, each as its `window` int64 [n] is cut."""
        along = torch.arange(self.px, device=faces.device)
        rows = self.row[window, None] + along
        columns = self.column[window, None] + torch.where(self.mirrored[window, None], self.px - 1 - along, along)
        number = torch.arange(len(faces), device=faces.device)
        return faces[number[:, None, None], rows[:, :, None], columns[:, None, :]]


def draw_augmentation(backbone: Backbone, stored_px: int, windows: int, config: FinetuneConfig) -> Augmentation:
    """Draw from torch's generator of the CPU how the faces of so many windows are cut; `stored_px`: their side.

    Without `crop` the middle is cut out, without `flip` nothing is mirrored.
    """
    px = backbone.input_px if backbone.view == CROP and backbone.input_px is not None else stored_px
    margin = stored_px - px
    middle = torch.full((windows,), margin // 2)
    row, column = (torch.randint(margin + 1, (windows,)) if config.crop else middle for _ in range(2))
    mirrored = torch.rand(windows) < 0.5 if config.flip else torch.zeros(windows, dtype=torch.bool)
    return Augmentation(row, column, mirrored, px)


def embed_trials(
    data: Dataset,
    backbones: Mapping[str, Backbone],
    trials: Sequence[str],
    rows_at_once: int,
    precision: Precision,
) -> Dataset:
    """These trials alone, with the rows that the backbones make in place of their views, float32.

    Each row is made once, however many windows will have it, without gradients, as `extract` makes it: the middle of
    a face, zeros where there is no face or no sound at all.
    """
    device = data.labels.device
    place = device if data.place == str(device) else torch.device("cpu")
    total = sum(data.spans[name][1] for name in trials)
    tables = [torch.zeros(total + 1, *shape, device=place) for shape in data.shapes]
    spans, held = {}, 0
    with torch.inference_mode():
        for name in trials:
            first, count = data.spans[name]
            spans[name] = (held, count)
            for begin in range(0, count, rows_at_once):
                length = min(rows_at_once, count - begin)
                window = Windows(torch.tensor([first + begin]), torch.tensor([length]))
                gathered = data.rows.gather(window, length)
                for modality, table, rows, valid in zip(data.modalities, tables, gathered, data.valid, strict=True):
                    made = rows[0].float() if isinstance(rows, Tensor) and modality not in backbones else None
                    if made is None:
                        real = valid[first + begin : first + begin + length]
                        made = _rows_of(backbones[modality], rows.to(device), real, precision)
                    table[held + begin : held + begin + length] = made.to(place)
            held += count
    chosen = torch.cat([torch.arange(first, first + count) for first, count in (data.spans[name] for name in trials)])
    index = torch.cat([chosen, torch.tensor([len(data.labels) - 1])]).to(device)
    return replace(
        data,
        sources={name: data.sources[name] for name in trials},
        spans=spans,
        rows=ResidentRows(tuple(tables)),
        valid=tuple(flags[index] for flags in data.valid),
        labels=data.labels[index],
        labelled=data.labelled[index],
        moments={name: data.moments[name] for name in trials},
        place=str(place),
        views={},
    )


def _rows_of(backbone: Backbone, view: Tensor | PatchTable, real: Tensor, precision: Precision) -> Tensor:
    """Rows float32 [n, dim] of one window's view [1, n, ...]; zeros where it is not `real` [n], and holds nothing."""
    every = torch.arange(len(real), device=real.device)
    with autocast(real.device, precision):
        rows: Tensor = backbone.network(backbone.inputs(take_rows(view, every))).float()
    if not real.all():
        missing = (~real).nonzero().flatten()
        rows[missing[empty_rows(view, missing, len(missing))]] = 0
    return rows
