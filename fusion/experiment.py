"""What a call of `train` works on: store, labels and folds brought together, read once for all its runs.

Tested by tests/fusion/test_crossval.py and tests/faults/test_train_input.py.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..features_store.corpus import Corpus
from ..features_store.files import LocalFiles
from ..features_store.status import untrained_features
from ..features_store.store import FeatureStore
from ..features_store.text import counted
from .config import RunConfig, TrainConfig
from .data import Dataset, load
from .description import Description, Features
from .devices import room_of
from .manifest import Fold, Manifest, some
from .progress import Progress, silent
from .sources import Matched, TrialSource, match_trials


@dataclass(frozen=True)
class Experiment:
    """Trials with labels and features, their rows, and the folds of those that are there."""

    data: Dataset
    folds: Mapping[int, Fold]
    features: Features
    annotations: str
    notes: tuple[str, ...]

    def describe(self, config: TrainConfig, fold: int) -> Description:
        """What the run of these settings on one fold is."""
        trials = self.folds[fold]
        statistics = self.data.statistics(trials.train, config)
        labels = labels_digest(self.data.sources[name] for name in (*trials.train, *trials.validation))
        return Description(config, trials, statistics, self.features, self.annotations, labels)

    def lines(self) -> list[str]:
        """What a user should know about it, on the screen."""
        data = self.data
        where = "streamed from the store" if data.place == "store" else f"on {data.place}"
        widths = ", ".join(f"{name} {width}" for name, width in zip(data.modalities, data.widths, strict=True))
        notes = [f"note: {note}" for note in self.notes]
        return [
            *notes,
            f"{counted(len(data.sources), 'trial')}, {counted(len(data.labels) - 1, 'row')} of {widths}, {where}",
        ]


@dataclass(frozen=True)
class Checked:
    """Trials with labels and features that fit each other, before any feature is read."""

    matched: Matched
    folds: Mapping[int, Fold]
    fingerprints: Mapping[str, int]

    @property
    def notes(self) -> list[str]:
        """What a user should know about them, a line each."""
        return _notes(self.matched)


def check_experiment(
    store: FeatureStore,
    corpus: Corpus,
    manifest: Manifest,
    folds: Sequence[int],
    config: TrainConfig,
    allow_mixed: bool,
) -> Checked:
    """Match labels with features.

    Raises ValueError where nothing matches, a side of a fold is left without a trial or, unless `allow_mixed`,
    features come from different settings or weights.
    """
    wanted = [manifest.fold(number) for number in folds]
    names = sorted({name for fold in wanted for name in (*fold.train, *fold.validation)})
    matched = match_trials(store, corpus, names, config.modalities)
    if not matched.trials:
        raise ValueError(_nothing_matches(store, names, config.modalities))
    kept = {fold.number: _kept(fold, matched) for fold in wanted}
    fingerprints = fingerprints_of(store, [source.stored for source in matched.trials.values()])
    if len(fingerprints) > 1 and not allow_mixed:
        told = ", ".join(f"{name[:12]} ({counted(count, 'trial')})" for name, count in fingerprints.items())
        raise ValueError(
            f"{store.path} holds features of different settings or weights: {told}; extract them again with one, "
            "or say --allow-other-features"
        )
    return Checked(matched, kept, fingerprints)


def open_experiment(
    store: FeatureStore,
    corpus: Corpus,
    manifest: Manifest,
    folds: Sequence[int],
    config: TrainConfig,
    run: RunConfig,
    allow_mixed: bool,
    progress: Progress[str] = silent,
) -> Experiment:
    """Match labels with features, check them and read the features.

    Raises ValueError as `check_experiment` does, and where features do not fit each other.
    """
    checked = check_experiment(store, corpus, manifest, folds, config, allow_mixed)
    data = load(store, checked.matched.trials, config.modalities, room_of(run), progress)
    features = Features(
        _place(store),
        checked.fingerprints,
        tuple(name for name in untrained_features(store) if name in config.modalities),
        dict(zip(data.modalities, data.widths, strict=True)),
    )
    return Experiment(data, checked.folds, features, os.path.abspath(corpus.root), (*checked.notes, *data.notes))


def labels_digest(sources: Iterable[TrialSource]) -> str:
    """Sha256 of the labels and masks of these trials, in their order."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.labels.tobytes() + source.labelled.tobytes())
    return digest.hexdigest()


def fingerprints_of(store: FeatureStore, trials: Iterable[str]) -> dict[str, int]:
    """{fingerprint: number of trials} of these trials of a store."""
    return dict(Counter(str((store.attributes(name) or {}).get("fingerprint")) for name in trials).most_common())


def _place(store: FeatureStore) -> str:
    """Where the store is, from whatever folder it is looked for again."""
    return os.path.abspath(store.files.root) if isinstance(store.files, LocalFiles) else store.path


def _kept(fold: Fold, matched: Matched) -> Fold:
    train, validation = (tuple(n for n in side if n in matched.trials) for side in (fold.train, fold.validation))
    for side, names, whole in (("training", train, fold.train), ("validation", validation, fold.validation)):
        if not names:
            raise ValueError(
                f"fold {fold.number}: none of the {len(whole)} {side} trials has features in the store "
                f"({some(sorted(whole))}); extract them, or choose another fold"
            )
    return Fold(fold.number, train, validation)


def _notes(matched: Matched) -> list[str]:
    notes = list(matched.notes)
    if matched.without_features:
        names = some(sorted(matched.without_features))
        notes.append(f"left out, since they have labels but no features: {names}; scores are without them")
    if matched.without_labels:
        notes.append(f"left out, since they have features but no labels: {some(list(matched.without_labels))}")
    return notes


def _nothing_matches(store: FeatureStore, names: Sequence[str], modalities: Sequence[str]) -> str:
    stored = store.trials()
    if not stored:
        return f"{store.path} holds no trial; `avfuse extract` fills it"
    present = sorted(set(store[stored[0]].features))
    lacking = [name for name in modalities if name not in present]
    if lacking:
        return (
            f"{store.path} has no {', '.join(lacking)}, only {', '.join(present)}; extract it, or choose --modalities"
        )
    return f"no trial has both labels ({some(list(names))}) and features ({some(stored)}): the names differ"
