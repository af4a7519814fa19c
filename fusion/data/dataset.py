"""A store and its labels as one data set: every trial's rows side by side, checked once when they are read.

    trials   a           b     c                 zero row
    rows     |0 … T_a)   |…)   |… N)             N              spans say where each trial lies

Tested by tests/fusion/data/test_dataset.py.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...features_store.clock import PATCH_FRAMES
from ...features_store.entries import AUDIO
from ...features_store.schema import VALID_SUFFIX
from ...features_store.store import FeatureStore
from ...features_store.trial import Trial, fill_rows
from ...shell.progress import Progress, silent
from ...shell.text import counted, preview
from ..config import SPEECH, TrainConfig
from .matching import TrialSource
from .runtime import Room
from .statistics import Moments, Statistics, moments_of, statistics_of, together
from .views import LOGMEL, PatchTable, View, join_patches, spectrogram_bytes
from .windows import ResidentRows, RowTable, Shape, Span, StreamedRows, Windows, plan_windows

_READERS = min(4, os.cpu_count() or 1)  # trials read at once; decoding lets go of the interpreter


@dataclass(frozen=True)
class Dataset:
    """Rows of some trials. `valid` bool [N + 1] of each modality, `labels` [N + 1, L], `labelled` bool [N + 1].

    `shapes`: of a row of each modality, `(512,)` of a vector, `(512, 7, 7)` of a map. `views`: modalities of which
    `rows` has what a backbone makes them of; their shape is that of the rows it makes, and their mean is 0, their
    standard deviation 1.
    """

    modalities: tuple[str, ...]
    shapes: tuple[Shape, ...]
    sources: Mapping[str, TrialSource]
    spans: Mapping[str, Span]
    rows: RowTable
    valid: tuple[Tensor, ...]
    labels: Tensor
    labelled: Tensor
    moments: Mapping[str, tuple[Moments, ...]]
    place: str
    notes: tuple[str, ...]
    views: Mapping[str, View] = field(default_factory=dict)

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
    check: Callable[[Sequence[Shape]], object] = tuple,
    speech_above: float | None = None,
    views: Mapping[str, View] | None = None,
) -> Dataset:
    """Read every trial once: to the device, to memory or, if it is too much for both, only to look at it.

    Rows that are not finite become zeros that are not valid, with a note. Maps of float16 stay float16, crops uint8;
    all else becomes float32. `check` is called with the shapes before a row is read. `speech_above`: rows that are
    made from sound are not valid where the feature `speech` is not, or says less. `views`: of the modalities that
    backbones make, what is read in their place. Raises ValueError if there is no trial, if an array is not what its
    trial or the other trials say, or if `speech` is wanted and is not there, or masks nothing.
    """
    if not sources:
        raise ValueError("no trial has both labels and features")
    spans: dict[str, Span] = {}
    total = 0
    for name, source in sources.items():
        spans[name] = (total, source.rows)
        total += source.rows
    views = views or {}
    stored = [views[modality].stored if modality in views else modality for modality in modalities]
    try:
        trials = {name: store[source.stored] for name, source in sources.items()}
        found = [_rows_of(list(trials.values()), array, array in modalities) for array in stored]
    except KeyError as error:  # removed, or made anew, since labels and features were matched
        raise ValueError(error.args[0]) from error
    kinds = dict(zip(stored, found, strict=True))
    shapes = tuple((views[m].dim,) if m in views else shape for m, (shape, _) in zip(modalities, found, strict=True))
    check(shapes)
    notes: list[str] = []
    spoken: dict[str, dict[str, NDArray[np.bool_]]] = {}
    if speech_above is not None:
        spoken, note = _spoken(trials, sources, stored, speech_above)
        notes.append(note)
    joined = LOGMEL if LOGMEL in stored and LOGMEL not in modalities else None
    size = sum(total * math.prod(shape) * dtype.itemsize for array, (shape, dtype) in kinds.items() if array != joined)
    size += sum(spectrogram_bytes(trials[n], joined, source.rows) for n, source in sources.items()) if joined else 0
    place = room.place(size)
    tables = _Tables(kinds, joined, place, total)
    valid = [np.zeros(total + 1, np.bool_) for _ in stored]

    def read(name: str) -> tuple[Moments, ...]:
        first, count = spans[name]
        moments = []
        with trials[name].unchanged():
            for at, (modality, array) in enumerate(zip(modalities, stored, strict=True)):
                out, broken = tables.read(trials[name], name, array, slice(first, first + count))
                real, note = _real_rows(trials[name], array, broken)
                if array in spoken.get(name, ()):
                    real &= spoken[name][array]
                valid[at][first : first + count] = real
                if modality in views:  # what its rows will be, changes from step to step
                    moments.append(Moments(0, np.zeros(views[modality].dim), np.zeros(views[modality].dim)))
                else:
                    moments.append(moments_of(out if real.all() else out[real]))
                notes.extend([f"{name}: {note}"] if note else [])
        return tuple(moments)

    with ThreadPoolExecutor(_READERS) as readers:
        moments = dict(zip(progress(list(sources), "reading features"), readers.map(read, sources), strict=True))
    of_rows = np.concatenate([source.labels for source in sources.values()])
    labels, labelled = np.zeros((total + 1, of_rows.shape[1]), np.float32), np.zeros(total + 1, np.bool_)
    labels[:total] = of_rows
    labelled[:total] = np.concatenate([source.labelled for source in sources.values()])
    return Dataset(
        modalities=tuple(modalities),
        shapes=shapes,
        sources=sources,
        spans=spans,
        rows=StreamedRows(trials, spans, kinds) if place == "store" else tables.resident(stored, list(sources)),
        valid=tuple(torch.from_numpy(flags).to(room.device) for flags in valid),
        labels=torch.from_numpy(labels).to(room.device),
        labelled=torch.from_numpy(labelled).to(room.device),
        moments=moments,
        place=place,
        notes=tuple(sorted(notes)),
        views=views,
    )


class _Tables:
    """Where rows go while they are read: one table an array, of the patches that are `joined` each trial's spectrogram.

    `kinds`: shape and type of each array's rows. Nothing is kept of what stays in the store.
    """

    def __init__(
        self, kinds: Mapping[str, tuple[Shape, np.dtype[Any]]], joined: str | None, place: str, total: int
    ) -> None:
        self.kinds, self.joined, self.place = kinds, joined, place
        self.rows = {
            array: np.zeros((total + 1, *shape), dtype)
            for array, (shape, dtype) in kinds.items()
            if place != "store" and array != joined
        }
        self.spectrograms: dict[str, tuple[NDArray[np.float32], NDArray[np.int64]]] = {}

    def read(self, trial: Trial, name: str, array: str, span: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """A trial's rows [T, ...] of an array, which are kept; and which of them are not finite, bool [T].

        Without rows for what needs no look: patches that are joined, and crops that stay in the store.
        """
        shape, dtype = self.kinds[array]
        count = span.stop - span.start
        if array in self.rows:
            out = self.rows[array][span]
            return out, fill_rows(trial, array, 0, out)
        nothing = np.empty((0, *shape), dtype)
        if self.place != "store":
            frames, firsts, broken = join_patches(trial, array, count)
            self.spectrograms[name] = frames, firsts
            return nothing, broken
        if dtype == np.uint8:
            return nothing, np.zeros(count, np.bool_)
        out = np.empty((count, *shape), dtype)
        return out, fill_rows(trial, array, 0, out)

    def resident(self, stored: Sequence[str], trials: Sequence[str]) -> ResidentRows:
        """Tables on the device, or in memory, in the order of these arrays and trials.

        The spectrograms are one, with 96 frames of silence at its end for the row past the last.
        """
        tables: dict[str, Tensor | PatchTable] = {
            array: torch.from_numpy(rows).to(self.place) for array, rows in self.rows.items()
        }
        if self.joined is not None:
            pieces = [self.spectrograms.pop(name) for name in trials]
            begins = np.cumsum([0, *(len(frames) for frames, _ in pieces)])
            firsts = [first + begin for (_, first), begin in zip(pieces, begins[:-1], strict=True)]
            end = np.zeros((PATCH_FRAMES, pieces[0][0].shape[1]), np.float32)
            frames = torch.from_numpy(np.concatenate([*(each for each, _ in pieces), end])).to(self.place)
            tables[self.joined] = PatchTable(frames, torch.from_numpy(np.concatenate([*firsts, begins[-1:]])))
        return ResidentRows(tuple(tables[array] for array in stored))


def shape_text(shape: Shape) -> str:
    """A row's shape as messages have it: `512`, `512×7×7`."""
    return "×".join(map(str, shape))


def _rows_of(trials: Sequence[Trial], modality: str, is_feature: bool = True) -> tuple[Shape, np.dtype[Any]]:
    """Shape of a modality's rows, the same in every trial, and the type in which they are kept.

    What is not a feature of the run is a view, which is kept as it is stored. Raises ValueError naming a trial that
    does not fit.
    """
    shapes: dict[Shape, str] = {}
    for trial in trials:
        shape = trial[modality].shape[1:]
        if not shape:
            raise ValueError(
                f"{modality} has one number per row; the trainer needs features [T, D] or maps [T, C, H, W]"
            )
        mask = f"{modality}{VALID_SUFFIX}"
        if mask not in trial:
            raise ValueError(f"{modality} is not a feature: trial {trial.name!r} does not say which rows are real")
        for array in (modality, mask):
            if (rows := trial[array].shape[0]) != trial.rows:
                raise ValueError(
                    f"trial {trial.name!r} has {counted(trial.rows, 'row')}, but its {array} has {rows}; "
                    "extract it again with `avfuse extract --overwrite`"
                )
        shapes.setdefault(shape, trial.name)
    if len(shapes) > 1:
        each = ", ".join(f"{shape_text(shape)} in {name!r}" for shape, name in shapes.items())
        raise ValueError(f"{modality} differs in width between trials: {each}; extract them with the same settings")
    (shape,) = shapes
    if not is_feature and all(trial[modality].dtype == np.uint8 for trial in trials):
        return shape, np.dtype(np.uint8)
    half = len(shape) > 1 and all(trial[modality].dtype == np.float16 for trial in trials)
    return shape, np.dtype(np.float16 if half else np.float32)


def _spoken(
    trials: Mapping[str, Trial], sources: Mapping[str, TrialSource], modalities: Sequence[str], least: float
) -> tuple[dict[str, dict[str, NDArray[np.bool_]]], str]:
    """{trial: {modality made from sound: where somebody speaks, bool [T]}}, and a note of how much that takes out.

    Somebody speaks where the probability is `least` or more, and of real sound. Raises ValueError where `speech` is
    missing, or no modality is made from sound.
    """
    lacking = [trial.name for trial in trials.values() if not {SPEECH, f"{SPEECH}{VALID_SUFFIX}"} <= set(trial)]
    if lacking:
        raise ValueError(
            f"audio_rows=speech needs the feature {SPEECH}, which is not in {preview(lacking)}; add it by "
            f"`avfuse extract --features {SPEECH}`"
        )
    masks: dict[str, dict[str, NDArray[np.bool_]]] = {}
    total = unspoken = 0
    for name, trial in trials.items():
        entries, count = trial.entries, sources[name].rows
        stored = min(trial.rows, count)
        spoken = np.zeros(count, np.bool_)
        with trial.unchanged():
            probability = trial.read(SPEECH).reshape(trial.rows, -1)[:stored, 0]
            spoken[:stored] = (probability >= least) & trial.valid(SPEECH)[:stored]
        heard = [each for each in modalities if entries.get(each, {}).get("made_from") == AUDIO and each != SPEECH]
        masks[name] = dict.fromkeys(heard, spoken)
        total, unspoken = total + count, unspoken + int(np.sum(~spoken))
    masked = preview(dict.fromkeys(each for of_trial in masks.values() for each in of_trial))
    if not masked:
        raise ValueError(f"audio_rows=speech changes nothing: none of {', '.join(modalities)} is made from sound")
    return masks, f"no speech in {unspoken} of {counted(total, 'row')}: {masked} count as missing there"


def _real_rows(trial: Trial, modality: str, broken: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], str]:
    """Which rows [T] of a trial are real: not repeated past its end, and not `broken`; and a note of what is."""
    stored = min(trial.rows, len(broken))
    valid = np.zeros(len(broken), np.bool_)
    valid[:stored] = trial.valid(modality)[:stored] & ~broken[:stored]
    if not broken.any():
        return valid, ""
    count, first = int(np.sum(broken[:stored])), np.argmax(broken)
    if count == 1:
        return valid, f"row {first} of {modality} is not finite; it counts as missing"
    return valid, f"{count} rows of {modality} are not finite (the first is row {first}); they count as missing"
