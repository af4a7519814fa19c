"""Windows to standardised, masked batches on the device.

Tested by tests/fusion/data/test_batches.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config import TrainConfig
from ..tasks.table import TASKS
from .dataset import Dataset
from .statistics import Statistics
from .views import PatchTable
from .windows import Windows, row_index


@dataclass(frozen=True)
class Batch:
    """B windows of W frames.

    `features` float32 [B, W, *shape] and `valid` bool [B, W] a modality (made from real media), `mask` bool [B, W]
    (no padding), `labels` float32 [B, W, L], `loss_mask` bool [B, W] (in the loss), `index` int64 [B, W] (table rows).
    `views` {modality: what a backbone makes its rows of, [B, W, ...]}; its `features` are then [B, W, 1], 1 where a row
    is to be made and 0 elsewhere.
    """

    features: tuple[Tensor, ...]
    valid: tuple[Tensor, ...]
    mask: Tensor
    labels: Tensor
    loss_mask: Tensor
    index: Tensor
    views: Mapping[str, Tensor | PatchTable] = field(default_factory=dict)


class Batches:
    """Batches of one data set, standardised with one fold's statistics."""

    def __init__(self, data: Dataset, statistics: Mapping[str, Statistics], config: TrainConfig) -> None:
        self._data = data
        self._window = config.window_frames
        self._batch_size = config.batch_size
        self._device = data.labels.device
        self._task = TASKS[config.task]
        self._labels = data.labels[:, self._task.label_columns()]
        if config.label_smoothing_frames > 1:  # only what is trained on: scores are of the labels as they are
            smoothed = np.zeros(self._labels.shape, np.float32)
            labelled = data.labelled.cpu().numpy()
            for first, rows in data.spans.values():
                own = slice(first, first + rows)
                labels = self._labels[own].cpu().numpy()
                smoothed[own] = smooth_labels(labels, labelled[own], config.label_smoothing_frames)
            self._labels = torch.from_numpy(smoothed).to(self._device)
        self._rows_in_loss = config.rows_in_loss
        self._loss_mask = data.labelled
        if config.rows_in_loss != "labelled":  # of these, the rows at which any feature, or all of them, are real
            real = torch.stack(data.valid)
            self._loss_mask = data.labelled & (real.any(0) if config.rows_in_loss == "any" else real.all(0))
        self._mean: list[Tensor] = []  # [D], of maps [C, 1, 1]
        self._scale: list[Tensor] = []
        for name, shape in zip(data.modalities, data.shapes, strict=True):
            for numbers, kept in ((statistics[name].mean, self._mean), (1 / statistics[name].std, self._scale)):
                given = torch.as_tensor(numbers, dtype=torch.float32, device=self._device)
                kept.append(given.view(-1, *[1] * (len(shape) - 1)))

    def all(self, windows: Windows, order: Tensor | None = None) -> Iterator[Batch]:
        """Every window once, in `order` int64 [n] (default: their own).

        If rows must travel to the device, the next batch is made meanwhile.
        """
        order = torch.arange(len(windows)) if order is None else order
        chosen = torch.split(order, self._batch_size) if len(order) else ()
        parts = [Windows(windows.start[numbers], windows.length[numbers]) for numbers in chosen]
        if self._data.place == str(self._device):
            yield from map(self.make, parts)
            return
        with ThreadPoolExecutor(1) as aside:
            pending = None
            for part in parts:
                pending, ready = aside.submit(self.make, part), pending
                if ready is not None:
                    yield ready.result()
            if pending is not None:
                yield pending.result()

    def to_train_on(self, windows: Windows, side: str) -> Windows:
        """Windows with enough rows in the loss: two for a CCC. Raises ValueError saying why `side` has none."""
        counts = []  # of each window's rows: how many are labelled, and how many are in the loss
        for flags in (self._data.labelled, self._loss_mask):
            before = torch.cat([torch.zeros(1, dtype=torch.int64), flags.cpu().cumsum(0)])
            counts.append(before[windows.start + windows.length] - before[windows.start])
        labelled, in_loss = counts
        enough = in_loss >= self._task.least_rows
        if enough.any():
            return Windows(windows.start[enough], windows.length[enough])
        if not labelled.any():
            raise ValueError(
                f"the {side} has no labelled frame: all its label rows are masked ({self._task.labels.masked:g})"
            )
        if in_loss.any() or self._rows_in_loss == "labelled":
            raise ValueError(f"the {side} has no window with two frames in the loss, and one frame has no CCC")
        real = "all features are" if self._rows_in_loss == "all" else "any feature is"
        raise ValueError(
            f"the {side} has labelled frames, but none at which {real} real; "
            "--set rows_in_loss=labelled trains on every labelled frame"
        )

    def make(self, windows: Windows) -> Batch:
        """One batch."""
        beyond = len(self._labels) - 1
        index = row_index(windows, self._window, beyond).to(self._device, non_blocking=True)
        mask = index < beyond
        features, views = [], {}
        gathered = self._data.rows.gather(windows, self._window)
        for name, rows, mean, scale in zip(self._data.modalities, gathered, self._mean, self._scale, strict=True):
            if name in self._data.views:
                views[name] = rows.to(self._device)
                features.append(mask[..., None].float())
                continue
            assert isinstance(rows, Tensor)
            moved = rows.to(self._device, non_blocking=True).float()  # maps travel as they are kept
            real = mask.view(*mask.shape, *[1] * mean.dim())
            features.append(moved.sub_(mean).mul_(scale).mul_(real))
        return Batch(
            features=tuple(features),
            valid=tuple(flags[index] for flags in self._data.valid),
            mask=mask,
            labels=self._labels[index],
            loss_mask=self._loss_mask[index],
            index=index,
            views=views,
        )


def smooth_labels(labels: NDArray[np.float32], labelled: NDArray[np.bool_], frames: int) -> NDArray[np.float32]:
    """Labels [T, L] of a trial, each the mean of the labelled ones among the `frames` rows around it.

    `labelled` bool [T]. Rows that are not labelled keep their numbers, and are in no mean. At the ends of the trial the
    window is cut.
    """
    window, half = np.ones(frames), frames // 2
    known = np.convolve(labelled.astype(np.float64), window)[half : half + len(labels)]
    smoothed = labels.copy()
    for column in range(labels.shape[1]):
        counted = np.where(labelled, labels[:, column].astype(np.float64), 0.0)
        total = np.convolve(counted, window)[half : half + len(labels)]
        smoothed[labelled, column] = total[labelled] / known[labelled]
    return smoothed


def drop_modalities(batch: Batch, share: float, generator: torch.Generator) -> Batch:
    """Modality dropout: in `share` of the windows one modality, drawn evenly, is missing (zeros, not valid)."""
    if not share or len(batch.features) < 2:
        return batch
    windows, modalities = len(batch.mask), len(batch.features)
    hit = torch.rand(windows, generator=generator) < share
    drawn = torch.randint(modalities, (windows,), generator=generator)
    kept = [(~(hit & (drawn == m))).to(batch.mask.device) for m in range(modalities)]
    return replace(
        batch,
        features=tuple(
            rows * keep.view(-1, *[1] * (rows.dim() - 1)) for rows, keep in zip(batch.features, kept, strict=True)
        ),
        valid=tuple(flags & keep[:, None] for flags, keep in zip(batch.valid, kept, strict=True)),
    )
