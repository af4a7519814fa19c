"""Windows of a store as a data set of torch, for a training loop of your own. Nothing else in this room loads torch.

    WindowDataset("features.zarr", ["iresnet50", "vggish"], annotations="labels")  →  DataLoader(…, num_workers=4)

Windows are cut as `avfuse train` cuts them: every `hop_frames`, and one more that ends with the trial; a shorter trial
is padded and masked. Rows are read when they are asked for, in whichever process asks.
Tested by tests/features_store/test_torch_dataset.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ..shell.text import check_known, counted, preview
from .clock import are_others, fit_time, window_starts
from .labels.corpus import Corpus, by_label_name, label_names, labels_of, open_corpus
from .schema import TIME, VALID_SUFFIX, StoreMismatch, plain_name
from .store import FeatureStore
from .trial import Trial, fill_rows


@dataclass(frozen=True)
class _Source:
    """A trial of T = `rows`: `labels` float32 [T, 2] and `labelled` bool [T], None without a corpus."""

    trial: str
    rows: int
    labels: NDArray[np.float32] | None
    labelled: NDArray[np.bool_] | None


class WindowDataset(Dataset[dict[str, Any]]):
    """Windows [W, …] of the trials that have every modality and, where there are annotations, labels.

    An item has, for each modality, its rows [W, …] (floats as float32, others as stored) and `<modality>_valid` bool
    [W]; `time_s` float64 [W]; `mask` bool [W], false on padding; `labels` float32 [W, 2] (valence, arousal; those of
    rows that are not `labelled` mean nothing) and `labelled` bool [W]; `trial`, its name, and `start`, its first row.
    Rows on padding are zeros; rows that are not finite are zeros and not valid.

    `trials` None: all that can be used; `left_out` says why of the others. T is the number of label rows where there
    are such: features are cut, or their last row is repeated and not valid. It may be pickled, and be used by workers
    of a DataLoader however they are started. Raises ValueError where a named trial cannot be used, none can, or label
    rows differ from frames by more than 5 and more than 1 %, unless `allow_length_difference`.
    """

    def __init__(
        self,
        store: str | os.PathLike[str],
        modalities: Sequence[str],
        window_frames: int = 300,
        hop_frames: int = 200,
        *,
        trials: Sequence[str] | None = None,
        annotations: str | os.PathLike[str] | None = None,
        allow_length_difference: bool = False,
    ) -> None:
        if not modalities or len(set(modalities)) < len(modalities) or isinstance(modalities, str):
            raise ValueError(f"modalities are a list of different features, got {modalities!r}")
        if not 0 < hop_frames <= window_frames:
            raise ValueError(f"0 < hop_frames <= window_frames, got {hop_frames} and {window_frames}")
        self.store_path = os.fspath(store)
        self.modalities = tuple(modalities)
        self.window_frames, self.hop_frames = window_frames, hop_frames
        self._opened: dict[str, Trial] = {}
        self._process = os.getpid()
        opened = FeatureStore(store)
        check_known("trial", trials or (), opened.trials())
        chosen = {name: opened[name] for name in (opened.trials() if trials is None else dict.fromkeys(trials))}
        corpus = open_corpus(Path(annotations)) if annotations is not None else None
        self._sources, self.left_out = _sources(chosen, self.modalities, corpus, allow_length_difference)
        if self.left_out and (trials is not None or not self._sources):
            reasons = (f"{name}: {why}" for name, why in self.left_out.items())
            raise ValueError(f"{counted(len(self.left_out), 'trial')} cannot be used: {preview(reasons, 3)}")
        starts = [window_starts(source.rows, window_frames, hop_frames) for source in self._sources]
        self._number = np.repeat(np.arange(len(starts)), [len(each) for each in starts])
        self._start = np.concatenate([np.zeros(0, np.int64), *starts])

    @property
    def trials(self) -> tuple[str, ...]:
        """Names of the trials, in the order of their windows."""
        return tuple(source.trial for source in self._sources)

    def __len__(self) -> int:
        return len(self._start)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One window. Raises IndexError beyond the last, StoreMismatch where the trial is broken or made anew."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        source, start = self._sources[self._number[index]], int(self._start[index])
        trial, window = self._trial(source.trial), self.window_frames
        length = min(window, source.rows - start)
        real = min(max(trial.rows - start, 0), length)  # labels may go on after the last frame
        item: dict[str, Any] = {"trial": source.trial, "start": start}
        with trial.unchanged():
            for modality in self.modalities:
                stored = trial[modality]
                dtype = np.float32 if stored.dtype.kind == "f" else stored.dtype.newbyteorder("=")
                rows, valid = np.zeros((window, *stored.shape[1:]), dtype), np.zeros(window, np.bool_)
                broken = fill_rows(trial, modality, start, rows[:length])
                valid[:real] = trial.valid(modality)[start : start + real] & ~broken[:real]
                item[modality], item[f"{modality}{VALID_SUFFIX}"] = torch.from_numpy(rows), torch.from_numpy(valid)
            time_s = fit_time(trial.time_s, start + window)[start:]
        labels, labelled = np.zeros((window, 2), np.float32), np.zeros(window, np.bool_)
        if source.labels is not None and source.labelled is not None:
            labels[:length] = source.labels[start : start + length]
            labelled[:length] = source.labelled[start : start + length]
        item["time_s"] = torch.from_numpy(np.ascontiguousarray(time_s))
        item["mask"] = torch.arange(window) < length
        item["labels"], item["labelled"] = torch.from_numpy(labels), torch.from_numpy(labelled)
        return item

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_opened": {}}

    def _trial(self, name: str) -> Trial:
        """The trial as this process has opened it: one that was opened before a fork is another process's."""
        if self._process != os.getpid():
            self._opened, self._process = {}, os.getpid()
        if name not in self._opened:
            try:
                self._opened[name] = FeatureStore(self.store_path)[name]
            except KeyError as error:  # an error of its own kind: a KeyError would say nothing of the store
                raise StoreMismatch(f"{error.args[0]}; it was there when the data set was made") from error
        return self._opened[name]


def _sources(
    trials: Mapping[str, Trial], modalities: Sequence[str], corpus: Corpus | None, allow_length_difference: bool
) -> tuple[list[_Source], dict[str, str]]:
    """The trials that can be used, and why the others cannot. Raises ValueError on lengths and shapes that differ."""
    stored = by_label_name(list(trials))[0]
    labelled: dict[str, str] = {}
    for label in corpus.files if corpus else ():
        if label in stored and (stored[label] not in labelled or plain_name(stored[label]) == label):
            labelled[stored[label]] = label
    sources: list[_Source] = []
    left_out: dict[str, str] = {}
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, trial in trials.items():
        arrays = {TIME, *modalities, *(f"{modality}{VALID_SUFFIX}" for modality in modalities)}
        if lacking := sorted(arrays - set(trial)):
            left_out[name] = f"the store has no {', '.join(lacking)} of it"
        elif not trial.rows:
            left_out[name] = "it has no rows"
        elif corpus and name not in labelled:
            last = label_names(name)[1]
            alike = [other for other in trials if label_names(other)[1] == last] if last in corpus.files else []
            left_out[name] = (
                f"its labels may be of {preview(alike)}" if alike[1:] else f"{corpus.root} has no labels of it"
            )
        else:
            for modality in modalities:
                first, shape = shapes.setdefault(modality, (name, trial[modality].shape[1:]))
                if trial[modality].shape[1:] != shape:
                    differ = f"{list(shape)} in {first!r}, {list(trial[modality].shape[1:])} in {name!r}"
                    raise ValueError(f"rows of {modality} differ in shape between trials: {differ}")
            if corpus is None:
                sources.append(_Source(name, trial.rows, None, None))
                continue
            truncated = bool(trial.attributes.get("truncated"))
            track = labels_of(corpus, labelled[name], trial.time_s, ends_early=truncated)
            decoded = trial.attributes.get("frames_decoded")
            frames = decoded if isinstance(decoded, int) else trial.rows
            if are_others(len(track.valid), frames) and not allow_length_difference:
                fault = f"{counted(len(track.valid), 'label row')}, but {counted(frames, 'frame')}"
                raise ValueError(f"trial {name!r} has {fault}; allow_length_difference=True takes it nevertheless")
            sources.append(_Source(name, len(track.valid), track.values, track.valid))
    return sources, left_out
