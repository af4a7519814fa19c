"""Runs on trials they have not learned from, and runs on a store without labels.

Tested by tests/fusion/inference/test_evaluate.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...features_store.interchange.result_files import made
from ...features_store.labels.corpus import label_name, open_corpus
from ...features_store.records.status import untrained_features
from ...features_store.store import FeatureStore
from ...shell.text import counted, preview, untrained_line
from ..artifacts.state import is_finished
from ..config import RunConfig
from ..data.matching import TrialSource, frame_times, match_trials, named_by_store, unlabelled
from ..data.runtime import Room, room_of
from ..results.folder import check_among_labels
from ..results.prediction_files import write_prediction
from ..results.report import Report, report
from ..results.smoothing import Smoothing, parse_smoothing
from ..runs.experiment import features_of, fingerprints_of, labels_digest, place_of
from .ensemble import Predictions, TrainedRun, check_features, find_runs, open_run, predict_with, smoothed

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Results:
    """Predictions of the trials `sources` of a store, and how they were `made`."""

    store: FeatureStore
    sources: Mapping[str, TrialSource]
    predictions: Predictions
    made: Mapping[str, Any]

    def write(self, folder: Path) -> None:
        """One file a trial in this folder."""
        for name, rows in self.predictions.trials.items():
            time_s = frame_times(self.store, self.sources[name])
            write_prediction(folder, name, self.predictions.columns, rows, time_s, self.predictions.valid[name])


@dataclass(frozen=True)
class Evaluation(Results):
    """Predictions of held-out trials and what they are worth."""

    report: Report


def evaluate_runs(
    folders: Sequence[Path],
    store: str | None,
    annotations: Path | None,
    smooth: str,
    run_config: RunConfig,
    allow_other: bool,
    tell: Tell,
    out: Path | None = None,
    allow_length_difference: bool = False,
) -> Evaluation:
    """Score runs on their validation trials; a trial that several hold out gets the mean of their predictions.

    Store and annotations are the runs' own unless given. Trials are named as the store names them. Raises ValueError
    where they are not there, where their features have other settings or weights than the runs have seen, unless
    `allow_other`, or where results may not lie in `out`.
    """
    smoothing, room = parse_smoothing(smooth), room_of(run_config)
    runs = _open(folders, room, tell)
    opened = FeatureStore(store or _common({run.described.features.store for run in runs}, "--store"))
    corpus = open_corpus(annotations or Path(_common({run.described.annotations for run in runs}, "--annotations")))
    if out is not None:
        check_among_labels(out, corpus)
    _say_untrained(opened, runs, tell)
    names = sorted({name for run in runs for name in run.described.fold.validation})
    label_of = {name: label for name in names if (label := label_name(corpus, name))}
    if unknown := [name for name in names if name not in label_of]:
        raise ValueError(f"{corpus.root} has no labels of {preview(unknown)}, which the runs hold out")
    modalities = sorted({name for run in runs for name in run.described.config.modalities})
    matched = match_trials(opened, corpus, sorted(set(label_of.values())), modalities, allow_length_difference)
    for note in matched.notes:
        tell(f"note: {note}")
    if matched.without_features:
        tell(f"note: no features of {preview(list(matched.without_features))}; the scores are without them")
    found = {name: matched.trials[label].stored for name, label in label_of.items() if label in matched.trials}
    held_out = {run.folder: [found[n] for n in run.described.fold.validation if n in found] for run in runs}
    sources = named_by_store(matched.trials)
    since = "have changed since the runs were trained; scored as they are now"
    if annotations is None and (relabelled := _relabelled(runs, sources)):
        tell(f"note: labels of {preview(sorted(relabelled))} {since}")
    if store is None and (remade := _remade(runs, opened, sources)):
        tell(f"note: features of {preview(sorted(remade))} {since}")
    predictions = _predict(runs, opened, sources, held_out, room, run_config, allow_other)
    predictions = smoothed(predictions, smoothing)
    sources = {name: source for name, source in sources.items() if name in predictions.trials}
    scored = report(list(sources.values()), predictions.trials, predictions.columns)
    labels = {"annotations": os.path.abspath(corpus.root), "labels_sha256": labels_digest(sources.values())}
    return Evaluation(opened, sources, predictions, _made(runs, opened, sources, smoothing, **labels), scored)


def predict_store(
    folders: Sequence[Path], store: str, smooth: str, run_config: RunConfig, allow_other: bool, tell: Tell
) -> Results:
    """Mean prediction of the runs for every trial of a store. Raises ValueError as `evaluate_runs` does."""
    smoothing, room = parse_smoothing(smooth), room_of(run_config)
    runs = _open(folders, room, tell)
    opened = FeatureStore(store)
    _say_untrained(opened, runs, tell)
    modalities = sorted({name for run in runs for name in run.described.config.modalities})
    sources, others = unlabelled(opened, modalities)
    if others:
        tell(f"note: left out, since they have not all of {', '.join(modalities)}: {preview(others)}")
    everything = {run.folder: list(sources) for run in runs}
    predictions = smoothed(_predict(runs, opened, sources, everything, room, run_config, allow_other), smoothing)
    return Results(opened, sources, predictions, _made(runs, opened, sources, smoothing))


def _relabelled(runs: Sequence[TrainedRun], sources: Mapping[str, TrialSource]) -> set[str]:
    """Trials whose labels are no longer those that a run has seen."""
    now = {name: labels_digest([source]) for name, source in sources.items()}
    return {n for run in runs for n, seen in run.described.labels.items() if now.get(n, seen) != seen}


def _remade(runs: Sequence[TrainedRun], store: FeatureStore, sources: Mapping[str, TrialSource]) -> set[str]:
    """Trials whose rows are no longer those that a run has seen."""
    changed = set()
    for run in runs:
        now, _ = features_of(store, sources, run.described.config.modalities)
        before = run.described.features.trials
        changed |= {name for name in now if before.get(name, now[name])["sha256"] != now[name]["sha256"]}
    return changed


def _made(
    runs: Sequence[TrainedRun],
    store: FeatureStore,
    sources: Mapping[str, TrialSource],
    smoothing: Smoothing,
    **labels: str,
) -> dict[str, Any]:
    untrained = {*untrained_features(store), *(name for run in runs for name in run.described.features.untrained)}
    return made(
        runs=[os.path.abspath(run.folder) for run in runs],
        store=place_of(store),
        fingerprints=fingerprints_of(store, [source.stored for source in sources.values()]),
        smoothing=str(smoothing),
        UNTRAINED=sorted(untrained),
        **labels,
    )


def _open(folders: Sequence[Path], room: Room, tell: Tell) -> list[TrainedRun]:
    runs = [open_run(folder, room.device) for folder in find_runs(folders)]
    if len(runs) > 1:
        tell(counted(len(runs), "run"))
    if early := [str(run.folder) for run in runs if not is_finished(run.folder)]:
        tell(f"note: not finished, used as they are after their last epoch: {preview(early)}")
    return runs


def _predict(
    runs: Sequence[TrainedRun],
    store: FeatureStore,
    sources: Mapping[str, TrialSource],
    wanted: Mapping[Path, Sequence[str]],
    room: Room,
    run_config: RunConfig,
    allow_other: bool,
) -> Predictions:
    if not any(wanted.values()):
        raise ValueError(f"{store.path} has no trial with the features of the runs")
    for run in runs:
        if not allow_other:
            check_features(run, store, [sources[name].stored for name in wanted[run.folder]])
    return predict_with(runs, store, sources, wanted, room, run_config)


def _common(values: set[str], option: str) -> str:
    if len(values) > 1:
        raise ValueError(
            f"the runs were trained with different places ({preview(sorted(values))}); name one by {option}"
        )
    return values.pop()


def _say_untrained(store: FeatureStore, runs: Sequence[TrainedRun], tell: Tell) -> None:
    """Once, whether the store has such features or the runs have learned from them."""
    learned = {name for run in runs for name in run.described.features.untrained}
    if line := untrained_line(sorted({*untrained_features(store), *learned})):
        tell(line)
