"""A store and its labels as one data set: every trial's rows side by side, checked once when they are read.

    trials   a           b     c                 zero row
    rows     |0 … T_a)   |…)   |… N)             N              spans say where each trial lies

Tested by tests/fusion/data/test_dataset.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...features_store.schema import VALID_SUFFIX
from ...features_store.store import FeatureStore
from ...features_store.trial import Trial, fill_rows
from ...shell.progress import Progress, silent
from ...shell.text import counted
from ..config import TrainConfig
from .matching import TrialSource
from .runtime import Room
from .statistics import Moments, Statistics, moments_of, statistics_of, together
from .windows import ResidentRows, RowTable, Span, StreamedRows, Windows, plan_windows

_READERS = min(4, os.cpu_count() or 1)  # trials read at once; decoding lets go of the interpreter


@dataclass(frozen=True)
class Dataset:
    """Rows of some trials. `valid` bool [N + 1] of each modality, `labels` [N + 1, L], `labelled` bool [N + 1]."""

    modalities: tuple[str, ...]
    widths: tuple[int, ...]
    sources: Mapping[str, TrialSource]
    spans: Mapping[str, Span]
    rows: RowTable
    valid: tuple[Tensor, ...]
    labels: Tensor
    labelled: Tensor
    moments: Mapping[str, tuple[Moments, ...]]
    place: str
    notes: tuple[str, ...]

    def windows(self, trials: Iterable[str], config: TrainConfig) -> Windows:
        """Every window of these trials."""
        return plan_windows((self.spans[name] for name in trials), config.window_frames, config.hop_frames)

    def statistics(self, trials: Sequence[str], config: TrainConfig) -> dict[str, Statistics]:
        """Statistics of each modality over the valid rows of these trials alone."""
        return {
            modality: statistics_of(together(self.moments[name][at] for name in trials), config.statistics)
            for at, modality in enumerate(self.modalities)
        }


def load(
    store: FeatureStore,
    sources: Mapping[str, TrialSource],
    modalities: Sequence[str],
    room: Room,
    progress: Progress[str] = silent,
) -> Dataset:
    """Read every trial once: to the device, to memory or, if it is too much for both, only to look at it.

    Rows that are not finite become zeros that are not valid, with a note. Raises ValueError if there is no trial, or
    if an array is not what its trial or the other trials say.
    """
    if not sources:
        raise ValueError("no trial has both labels and features")
    spans: dict[str, Span] = {}
    total = 0
    for name, source in sources.items():
        spans[name] = (total, source.rows)
        total += source.rows
    try:
        trials = {name: store[source.stored] for name, source in sources.items()}
        widths = tuple(_width(list(trials.values()), modality) for modality in modalities)
    except KeyError as error:  # removed, or made anew, since labels and features were matched
        raise ValueError(error.args[0]) from error
    place = room.place(total * sum(widths) * 4)
    tables = [np.zeros((total + 1, width), np.float32) for width in widths] if place != "store" else None
    valid = [np.zeros(total + 1, np.bool_) for _ in widths]
    notes: list[str] = []

    def read(name: str) -> tuple[Moments, ...]:
        first, count = spans[name]
        rows = slice(first, first + count)
        moments = []
        with trials[name].unchanged():
            for at, modality in enumerate(modalities):
                out = np.empty((count, widths[at]), np.float32) if tables is None else tables[at][rows]
                real, note = _read_rows(trials[name], modality, out)
                valid[at][rows] = real
                moments.append(moments_of(out if real.all() else out[real]))
                notes.extend([f"{name}: {note}"] if note else [])
        return tuple(moments)

    with ThreadPoolExecutor(_READERS) as readers:
        moments = dict(zip(progress(list(sources), "reading features"), readers.map(read, sources), strict=True))
    of_rows = np.concatenate([source.labels for source in sources.values()])
    labels, labelled = np.zeros((total + 1, of_rows.shape[1]), np.float32), np.zeros(total + 1, np.bool_)
    labels[:total] = of_rows
    labelled[:total] = np.concatenate([source.labelled for source in sources.values()])
    table: RowTable
    if tables is None:
        table = StreamedRows(trials, spans, dict(zip(modalities, widths, strict=True)))
    else:
        table = ResidentRows(tuple(torch.from_numpy(rows).to(place) for rows in tables))
    return Dataset(
        modalities=tuple(modalities),
        widths=widths,
        sources=sources,
        spans=spans,
        rows=table,
        valid=tuple(torch.from_numpy(flags).to(room.device) for flags in valid),
        labels=torch.from_numpy(labels).to(room.device),
        labelled=torch.from_numpy(labelled).to(room.device),
        moments=moments,
        place=place,
        notes=tuple(sorted(notes)),
    )


def _width(trials: Sequence[Trial], modality: str) -> int:
    """D of a modality: the same in every trial. Raises ValueError naming a trial that does not fit."""
    widths: dict[int, str] = {}
    for trial in trials:
        shape = trial[modality].shape
        if len(shape) != 2:
            raise ValueError(f"{modality} has rows of shape {shape[1:]}; the trainer needs features [T, D]")
        mask = f"{modality}{VALID_SUFFIX}"
        if mask not in trial:
            raise ValueError(f"{modality} is not a feature: trial {trial.name!r} does not say which rows are real")
        for array in (modality, mask):
            if (rows := trial[array].shape[0]) != trial.rows:
                raise ValueError(
                    f"trial {trial.name!r} has {counted(trial.rows, 'row')}, but its {array} has {rows}; "
                    "extract it again with `avfuse extract --overwrite`"
                )
        widths.setdefault(shape[1], trial.name)
    if len(widths) > 1:
        each = ", ".join(f"{width} in {name!r}" for width, name in widths.items())
        raise ValueError(f"{modality} differs in width between trials: {each}; extract them with the same settings")
    return next(iter(widths))


def _read_rows(trial: Trial, modality: str, out: NDArray[np.float32]) -> tuple[NDArray[np.bool_], str]:
    """Fill `out` [T, D] with a trial's rows, cut or the last one repeated; returns their validity and a note."""
    stored = min(trial.rows, len(out))
    broken = fill_rows(trial, modality, 0, out)
    real = trial.valid(modality)
    valid = np.zeros(len(out), np.bool_)
    valid[:stored] = real[:stored] & ~broken[:stored]
    if not broken.any():
        return valid, ""
    count, first = int(np.sum(broken[:stored])), np.argmax(broken)
    if count == 1:
        return valid, f"row {first} of {modality} is not finite; it counts as missing"
    return valid, f"{count} rows of {modality} are not finite (the first is row {first}); they count as missing"
