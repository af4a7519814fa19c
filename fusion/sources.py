"""Which trials there are: features in the store, labels in the annotations, and what has only one of both.

Tested by tests/fusion/test_sources.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..features_store.clock import fit_time
from ..features_store.corpus import Corpus, is_timed, labels_of
from ..features_store.schema import TIME
from ..features_store.store import FeatureStore
from ..features_store.text import counted
from ..features_store.trial import Trial

TOLERATED_ROWS = 5


@dataclass(frozen=True)
class TrialSource:
    """One trial: its name in the labels and in the store, its T rows, labels [T, 2] and which rows have some."""

    name: str
    stored: str
    labels: NDArray[np.float32]
    labelled: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.labels.shape != (len(self.labelled), 2):
            raise ValueError(f"{self.name}: labels {self.labels.shape} but {len(self.labelled)} flags")

    @property
    def rows(self) -> int:
        """T: label rows; for a trial without labels the rows of its features."""
        return len(self.labelled)


@dataclass(frozen=True)
class Matched:
    """Labelled trials whose features are there, and what is not: `notes` are lines for the user."""

    trials: Mapping[str, TrialSource]
    without_features: tuple[str, ...]
    without_labels: tuple[str, ...]
    notes: tuple[str, ...]


def match_trials(store: FeatureStore, corpus: Corpus, names: Iterable[str], modalities: Sequence[str]) -> Matched:
    """The trials `names` of the corpus with features of every modality.

    Raises ValueError on bad labels, and where two label files mean one trial of the store.
    """
    everything = store.trials()
    stored, several = _by_name(everything)
    trials: dict[str, TrialSource] = {}
    notes: list[str] = []
    missing: list[str] = []
    for name in names:
        trial = store[stored[name]] if name in stored else None
        lacking = sorted({TIME, *modalities} - set(trial or ())) if trial is None or trial.rows else ["row"]
        if trial is None or lacking:
            missing.append(name)
            notes += [f"{name}: the store has no {', '.join(lacking)}; it is left out"] if trial is not None else []
            notes += [f"{name}: the store has several of this name: {', '.join(several.get(name, []))}"] * (
                name in several
            )
            continue
        trials[name] = _labelled(corpus, name, trial)
        notes += _length_notes(trials[name], trial.rows)
    _check_different(trials)
    unlabelled = set(everything) - {stored[name] for name in corpus.files if name in stored}
    return Matched(trials, tuple(missing), tuple(sorted(unlabelled)), tuple(notes))


def named_by_store(trials: Mapping[str, TrialSource]) -> dict[str, TrialSource]:
    """The same trials by their names in the store: the one naming of all results."""
    return {source.stored: replace(source, name=source.stored) for source in trials.values()}


def frame_times(store: FeatureStore, source: TrialSource) -> NDArray[np.float64]:
    """Times of a trial's T rows, s; those beyond the video go on at its mean step.

    Raises ValueError where the trial, or its times, are not in the store.
    """
    try:
        time_s = store[source.stored].time_s
    except KeyError as error:  # removed since its rows were read, or without times
        raise ValueError(error.args[0]) from error
    return fit_time(time_s, source.rows)


def unlabelled(store: FeatureStore, modalities: Sequence[str]) -> tuple[dict[str, TrialSource], list[str]]:
    """Every trial of the store with these modalities, without labels; and the names of the others."""
    trials, others = {}, []
    for name, trial in store.items():
        if {TIME, *modalities} <= set(trial):
            rows = trial.rows
            trials[name] = TrialSource(name, name, np.zeros((rows, 2), np.float32), np.zeros(rows, np.bool_))
        else:
            others.append(name)
    return trials, others


def _labelled(corpus: Corpus, name: str, trial: Trial) -> TrialSource:
    track = labels_of(corpus, name, trial.time_s if is_timed(corpus.files[name]) else None)
    return TrialSource(name, trial.name, track.values, track.valid)


def _length_notes(source: TrialSource, stored_rows: int) -> list[str]:
    if abs(source.rows - stored_rows) <= TOLERATED_ROWS:
        return []
    return [f"{source.name}: {counted(source.rows, 'label row')} but {counted(stored_rows, 'row')} of features"]


def _check_different(trials: Mapping[str, TrialSource]) -> None:
    """Raise ValueError where two label files mean one trial: it could stand on both sides of a fold."""
    first: dict[str, str] = {}
    for name, source in trials.items():
        if first.setdefault(source.stored, name) != name:
            told = (
                f"the label files {first[source.stored]!r} and {name!r} both mean trial {source.stored!r} of the store"
            )
            raise ValueError(f"{told}; remove one")


def _by_name(names: Sequence[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """{name a label file may have: name in the store}: whole, and the last part where only one has it.

    Also {last part: the names that share it}.
    """
    short: dict[str, list[str]] = defaultdict(list)
    for name in names:
        short[name.rpartition("/")[2]].append(name)
    alone = {last: found[0] for last, found in short.items() if len(found) == 1}
    several = {last: found for last, found in short.items() if len(found) > 1 and last not in names}
    return alone | {name: name for name in names}, several
