"""What a call of `train` works on: store, labels and folds brought together, read once for all its runs.

Tested by tests/fusion/runs/test_crossval.py and tests/faults/test_train_input.py.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ...features_store.disk.backends import LocalFiles
from ...features_store.entries import arrays_of, entries_of
from ...features_store.interchange.result_files import check_truth
from ...features_store.labels.corpus import Corpus, label_name
from ...features_store.records.leaks import leak_line, tuning_of
from ...features_store.records.provenance import lineage, making, unlike
from ...features_store.records.status import untrained_features
from ...features_store.schema import subject_of
from ...features_store.store import FeatureStore
from ...shell.progress import Progress, silent
from ...shell.text import counted, preview
from ..artifacts.folder import Description, Features
from ..config import RunConfig, TrainConfig
from ..data.dataset import Dataset, load, shape_text
from ..data.matching import Match, TrialSource, match_trials, named_by_store
from ..data.runtime import room_of
from ..data.views import View
from ..folds.manifest import Fold, Manifest
from ..models.table import check_shapes
from ..tasks.table import TASKS

DataKey = tuple[str, tuple[str, ...], tuple[str, ...], float | None]


def data_key(config: TrainConfig) -> DataKey:
    """Runs with the same one, on the same folds, share what is read: its task's labels, its features, its masks."""
    return config.task, config.modalities, config.inputs, config.speech_above


@dataclass(frozen=True)
class Checked:
    """Trials with labels and features that fit each other, by their names in the store, before any feature is read.

    `extra`: those with labels from `extra_annotations`, which are only ever trained on.
    """

    trials: Mapping[str, TrialSource]
    folds: Mapping[int, Fold]
    features: Features
    annotations: str
    notes: tuple[str, ...]
    extra: frozenset[str] = frozenset()
    extra_annotations: str = ""

    def describe(self, config: TrainConfig, number: int) -> Description:
        """What the run of these settings on one fold is, without statistics."""
        fold = self.folds[number]
        sources = [self.trials[name] for name in (*fold.train, *fold.validation)]
        seen = {source.name: self.features.trials[source.name] for source in sources}
        features = replace(self.features, trials=seen, fingerprints=fingerprints_of(seen))
        labels = {source.name: labels_digest([source]) for source in sources}
        used = [source.name for source in sources if source.name in self.extra]
        extra = {"annotations": self.extra_annotations, "trials": used} if self.extra_annotations else {}
        return Description(config, fold, {}, features, self.annotations, labels_digest(sources), labels, extra)


@dataclass(frozen=True)
class Experiment:
    """What was checked, and its rows."""

    checked: Checked
    data: Dataset

    def describe(self, config: TrainConfig, number: int) -> Description:
        """What the run of these settings on one fold is."""
        described = self.checked.describe(config, number)
        shapes = dict(zip(self.data.modalities, self.data.shapes, strict=True))
        return replace(
            described,
            statistics=self.data.statistics(described.fold.train, config),
            features=replace(described.features, shapes=shapes),
        )

    def lines(self) -> list[str]:
        """What a user should know about it, on the screen."""
        data = self.data
        place = "streamed from the store" if data.place == "store" else f"on {data.place}"
        widths = ", ".join(f"{name} {shape_text(s)}" for name, s in zip(data.modalities, data.shapes, strict=True))
        notes = [f"note: {note}" for note in (*self.checked.notes, *data.notes)]
        rows = counted(len(data.labels) - 1, "row")
        return [*notes, f"{counted(len(data.sources), 'trial')}, {rows} of {widths}, {place}"]


def check_experiment(
    store: FeatureStore,
    corpus: Corpus,
    manifest: Manifest,
    folds: Sequence[int],
    config: TrainConfig,
    allow_other_features: bool,
    allow_length_difference: bool = False,
    extra: Corpus | None = None,
) -> Checked:
    """Match labels with features; trials of the `extra` corpus are added to the training side of each fold.

    Raises ValueError if the labels are another task's or pseudo-labels, nothing matches, a side of a fold is left
    without a trial, label rows are not frames (unless `allow_length_difference`), or features come from different
    settings or weights (unless `allow_other_features`).
    """
    check_truth(corpus.root)
    if (kind := TASKS[config.task].labels) != corpus.kind:
        raise ValueError(f"the task {config.task} learns {kind.name} labels, got the {corpus.kind.name} ones")
    wanted = [manifest.fold(number) for number in folds]
    names = sorted({name for fold in wanted for name in (*fold.train, *fold.validation)})
    matched = match_trials(store, corpus, names, config.inputs, allow_length_difference)
    if not matched.trials:
        raise ValueError(_why_nothing_matches(store, names, config, matched))
    kept = {}  # the folds of the trials that matched, by their names in the store
    for fold in wanted:
        sides = []
        for side, whole in (("training", fold.train), ("validation", fold.validation)):
            sides.append(tuple(matched.trials[name].stored for name in whole if name in matched.trials))
            if not sides[-1]:
                none = f"fold {fold.number}: none of its {counted(len(whole), f'{side} trial')}"
                if ambiguity := _several(whole, matched):
                    raise ValueError(f"{none} can be used: {ambiguity}")
                raise ValueError(
                    f"{none} has features in the store ({preview(sorted(whole))}); extract them, or choose another fold"
                )
        kept[fold.number] = Fold(fold.number, *sides)
    trials = named_by_store(matched.trials)
    notes = list(matched.notes)
    added: dict[str, TrialSource] = {}
    if extra is not None:
        # A trial with labels of its own keeps them; and an extra one is on no side where it is validated.
        further = match_trials(store, extra, list(extra.files), config.inputs, allow_length_difference)
        notes += further.notes
        every = {name: source for name, source in named_by_store(further.trials).items() if source.labelled.any()}
        added = {name: source for name, source in every.items() if label_name(corpus, name) is None}
        if own := sorted(set(every) - set(added)):
            notes.append(f"{preview(own)}: labels in {extra.root} do not count, since {corpus.root} has them too")
        trials |= added
        for number, fold in kept.items():
            held = {subject_of(name) for name in fold.validation} if manifest.grouping != "none" else set()
            apart = [name for name in added if subject_of(name) not in held]
            kept[number] = Fold(number, (*fold.train, *apart), fold.validation)
            left = preview(sorted(set(added) - set(apart)))
            notes.append(f"fold {number}: {counted(len(apart), 'trial')} of {extra.root} to train on as well")
            notes += [f"fold {number}: not {left}, whose subjects it validates on"] if left else []
    seen, made, tuned = features_of(store, trials, config.inputs)
    fingerprints = fingerprints_of(seen)
    for modality, counts in fingerprints.items():
        if len(counts) > 1 and not allow_other_features:
            mixture = ", ".join(f"{name[:12]} ({counted(count, 'trial')})" for name, count in counts.items())
            (one, first), (other, second), *_ = counts.items()
            if named := unlike(made[one], made[other], f"in {counted(first, 'trial')}", f"in {second}"):
                mixture = f"{named}: {mixture}"
            raise ValueError(
                f"{store.path} holds {modality} of different settings or weights: {mixture}; extract it again with one "
                f"(--features {modality} --replace), or give --allow-other-features"
            )
    notes += _left_out(matched, added)
    random = (name for name in untrained_features(store) if name in config.inputs)
    untrained = (*random, *config.untrained_networks)
    features = Features(
        *(location_of(store), fingerprints, untrained, {}, seen, made, tuned),
        entries=lineages(store, seen, fingerprints),
    )
    for number, fold in kept.items():
        line = leak_line(features.leaks(fold.validation), "validation trial")
        notes += [f"fold {number}: {line}: its scores say nothing"] if line else []
    places = os.path.abspath(corpus.root), os.path.abspath(extra.root) if extra is not None else ""
    return Checked(trials, kept, features, places[0], tuple(notes), frozenset(added), places[1])


def open_experiment(
    store: FeatureStore,
    corpus: Corpus,
    manifest: Manifest,
    folds: Sequence[int],
    config: TrainConfig,
    run: RunConfig,
    allow_other_features: bool,
    progress: Progress[str] = silent,
    allow_length_difference: bool = False,
    extra: Corpus | None = None,
    views: Mapping[str, View] | None = None,
) -> Experiment:
    """Match labels with features, check them and read the features, or `views` of modalities that backbones make.

    Raises ValueError as `check_experiment` does, and if features do not fit each other or the head.
    """
    allowed = (allow_other_features, allow_length_difference)
    checked = check_experiment(store, corpus, manifest, folds, config, *allowed, extra)
    fits = partial(check_shapes, config)
    room = room_of(run)
    data = load(store, checked.trials, config.modalities, room, progress, fits, config.speech_above, views)
    return Experiment(checked, data)


def labels_digest(sources: Iterable[TrialSource]) -> str:
    """Sha256 of the labels and masks of these trials, in their order."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.labels.tobytes() + source.labelled.tobytes())
    return digest.hexdigest()


def features_of(
    store: FeatureStore, trials: Iterable[str], modalities: Sequence[str]
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, str]], dict[str, dict[str, Mapping[str, Any]]]]:
    """Of each trial the fingerprint of each modality and the sha256 of their rows; of each fingerprint its making.

    Last, of each modality and fingerprint of tuned weights what these say of their tuning. The rows' sha256 is that of
    the store's own checksums: no row is read.
    """
    seen: dict[str, dict[str, Any]] = {}
    made: dict[str, dict[str, str]] = {}
    tuned: dict[str, dict[str, Mapping[str, Any]]] = {}
    known: set[tuple[str, str]] = set()
    for name in trials:
        attributes: dict[str, Any] = store.attributes(name) or {}
        sums, entries = attributes.get("checksums", {}), entries_of(attributes)
        arrays = [array for modality in modalities for array in arrays_of(modality)]
        digest = hashlib.sha256("".join(f"{array} {sums.get(array)}\n" for array in arrays).encode()).hexdigest()
        fingerprints = {modality: str(entries.get(modality, {}).get("fingerprint")) for modality in modalities}
        seen[name] = {"fingerprints": fingerprints, "sha256": digest}
        for modality, fingerprint in fingerprints.items():
            if (modality, fingerprint) not in known:  # what does not say how it was made shares the trial's own
                known.add((modality, fingerprint))
                made[fingerprint] = {**made.get(fingerprint, {}), **making(entries, modality)}
                if (tuning := tuning_of(entries.get(modality, {}))) is not None:
                    tuned.setdefault(modality, {})[fingerprint] = tuning
    return seen, made, tuned


def lineages(
    store: FeatureStore, seen: Mapping[str, Mapping[str, Any]], fingerprints: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """What it takes to extract each modality again, {modality: {name: entry}}, of its most frequent fingerprint."""
    found = {}
    for modality, counts in fingerprints.items():
        most = next(iter(counts))
        name = next(name for name, each in seen.items() if each["fingerprints"].get(modality) == most)
        found[modality] = lineage(entries_of(store.attributes(name) or {}), modality)
    return found


def fingerprints_of(seen: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """{modality: {fingerprint: number of trials}}, the most frequent first, of what `features_of` found."""
    counts: dict[str, Counter[str]] = {}
    for each in seen.values():
        for modality, fingerprint in each["fingerprints"].items():
            counts.setdefault(modality, Counter())[fingerprint] += 1
    return {modality: dict(count.most_common()) for modality, count in counts.items()}


def location_of(store: FeatureStore) -> str:
    """An absolute path, or the URL: the store is found again whatever the working folder is."""
    return os.path.abspath(store.files.root) if isinstance(store.files, LocalFiles) else store.path


def _left_out(matched: Match, added: Collection[str]) -> list[str]:
    """Which trials have either labels or features; those that are `added` have labels of their own."""
    lacking, unlabelled = sorted(matched.without_features), [n for n in matched.without_labels if n not in added]
    notes = []
    if lacking:
        notes.append(f"left out, since they have labels but no features: {preview(lacking)}; scores are without them")
    if unlabelled:
        notes.append(f"left out, since they have features but no labels: {preview(unlabelled)}")
    return notes


def _several(names: Iterable[str], matched: Match) -> str:
    """The first of these names that several trials of the store have, and what to do; empty if there is none."""
    for name in names:
        if shared := matched.ambiguous.get(name):
            return (
                f"the store has several trials {name}: {preview(list(shared))}; remove all but one, or put the labels "
                "into folders of the same names"
            )
    return ""


def _why_nothing_matches(store: FeatureStore, names: Sequence[str], config: TrainConfig, matched: Match) -> str:
    stored = store.trials()
    if not stored:
        return f"{store.path} does not hold a trial; `avfuse extract` fills it"
    present = sorted(set(store[stored[0]].features))
    if lacking := [name for name in config.inputs if name not in present]:
        missing, there = ", ".join(lacking), ", ".join(present)
        if set(lacking) <= set(config.views.values()):  # what a network that is tuned is fed is no choice of features
            return f"{store.path} has no {missing}, only {there}; `extract --features {','.join(lacking)}`"
        return f"{store.path} has no {missing}, only {there}; extract it, or choose --modalities"
    if ambiguity := _several(names, matched):
        return f"no trial can be used: {ambiguity}"
    return f"no trial has both labels ({preview(list(names))}) and features ({preview(stored)}): the names differ"
