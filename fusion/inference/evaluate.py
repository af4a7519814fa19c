"""Runs on trials that they have not learned from, and runs on a store without labels.

Tested by tests/fusion/inference/test_evaluate.py.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...features_store.interchange.result_files import check_truth, made
from ...features_store.labels.corpus import Corpus, label_name, open_corpus
from ...features_store.records.leaks import leak_line, leaks
from ...features_store.records.status import untrained_features
from ...features_store.store import FeatureStore
from ...shell.text import counted, preview, untrained_line
from ..artifacts.state import is_finished
from ..data.matching import TrialSource, frame_times, match_trials, named_by_store, unlabelled
from ..data.runtime import Room, room_of
from ..finetuning.learner import leaks_of_base
from ..results.folder import check_among_labels
from ..results.prediction_files import write_prediction
from ..results.report import Report, report
from ..results.smoothing import Smoothing, parse_smoothing, smooth
from ..runs.experiment import features_of, fingerprints_of, labels_digest, location_of
from ..tasks.table import TASKS, joint_task
from ..tasks.task import Task
from .ensemble import Predictions, TrainedRun, check_features, find_runs, open_run, predict_with

if TYPE_CHECKING:
    from ..requests import EvaluateRequest, PredictRequest

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Results:
    """Predictions of the trials `sources` of a store, and how they were `made`."""

    store: FeatureStore
    sources: Mapping[str, TrialSource]
    predictions: Predictions
    made: Mapping[str, Any]

    def write(self, folder: Path, suffix: str = ".txt") -> None:
        """One file per trial in this folder."""
        for name, rows in self.predictions.trials.items():
            time_s = frame_times(self.store, self.sources[name])
            task, valid = self.predictions.task, self.predictions.valid[name]
            write_prediction(folder, name, task.columns, rows, time_s, valid, task.limits, suffix)


@dataclass(frozen=True)
class Evaluation(Results):
    """Predictions of held-out trials and their scores."""

    report: Report


@dataclass(frozen=True)
class _Opened:
    """Runs and a store, and the `untrained` features that the store has or that the runs have learned from."""

    runs: Sequence[TrainedRun]
    task: Task
    store: FeatureStore
    room: Room
    untrained: Sequence[str]


def evaluate_runs(request: EvaluateRequest, tell: Tell) -> Evaluation:
    """Score runs on their validation trials; a trial that several hold out gets the mean of their predictions.

    Store and annotations are the runs' own unless given. Trials are named as the store names them. Raises ValueError
    if they cannot be read, if their features have other settings or weights than those that the runs have learned
    from and the request does not allow it, if weights behind them were tuned on trials that are to be scored and it
    does not allow that, or if results may not lie in its `out`.
    """
    smoothing = parse_smoothing(request.smooth)
    opened = _open(request, tell)
    runs = opened.runs
    annotations = {run.described.annotations for run in runs}
    corpus = open_corpus(request.annotations or Path(_common(annotations, "--annotations")), opened.task.labels)
    check_truth(corpus.root)
    if request.out is not None:
        check_among_labels(request.out, corpus)
    names = sorted({name for run in runs for name in run.described.fold.validation})
    label_of = {name: label for name in names if (label := label_name(corpus, name))}
    if unknown := [name for name in names if name not in label_of]:
        raise ValueError(f"{corpus.root} has no labels of {preview(unknown)}, which the runs hold out")
    modalities = sorted({name for run in runs for name in run.described.config.inputs})
    matched = match_trials(
        opened.store, corpus, sorted(set(label_of.values())), modalities, request.allow_length_difference
    )
    for note in matched.notes:
        tell(f"note: {note}")
    if matched.without_features:
        tell(f"note: no features of {preview(list(matched.without_features))}; the scores are without them")
    stored = {name: matched.trials[label].stored for name, label in label_of.items() if label in matched.trials}
    held_out = {run.folder: [stored[n] for n in run.described.fold.validation if n in stored] for run in runs}
    sources = named_by_store(matched.trials)
    changed: dict[str, set[str]] = {"labels": set(), "features": set()}  # no longer those that a run has seen
    leaking: dict[str, list[str]] = defaultdict(list)
    begun: set[str] = set()  # leaking, since the runs' own networks began from such weights
    for run in runs:
        seen, before = run.described.labels, run.described.features.trials
        now, _, tuned = features_of(opened.store, sources, run.described.config.inputs)
        of_store = leaks(tuned, {name: now[name]["fingerprints"] for name in held_out[run.folder]})
        of_base = leaks_of_base(run.folder, run.described.config, held_out[run.folder])
        begun |= of_base.keys()
        for feature, names_known in (*of_store.items(), *of_base.items()):
            leaking[feature] += names_known
        if request.annotations is None:
            digests = {name: labels_digest([source]) for name, source in sources.items() if name in seen}
            changed["labels"] |= {name for name, digest in digests.items() if digest != seen[name]}
        if request.store is None:
            changed["features"] |= {n for n in now if before.get(n, now[n])["sha256"] != now[n]["sha256"]}
    if line := leak_line(leaking, "trial"):
        if not request.allow_leak:
            way = f"{'Finetune' if begun >= leaking.keys() else 'Extract'} {preview(leaking)}"
            raise ValueError(
                f"{opened.store.path}: {line}: their scores would say nothing about new trials. {way} "
                "with weights that were tuned on other trials, or give --allow-leak"
            )
        tell(f"LEAK: {line}: these scores say nothing about new trials")
    for what, trials in changed.items():
        if trials:
            since = "have changed since the runs were trained; scored as they are now"
            tell(f"note: {what} of {preview(sorted(trials))} {since}")
    results = _predict(request, opened, sources, held_out, smoothing, corpus)
    if leaking:
        results = replace(results, made={**results.made, "LEAK": dict(leaking)})
    predictions = results.predictions
    scored = report(list(results.sources.values()), predictions.trials, predictions.task)
    return Evaluation(results.store, results.sources, predictions, results.made, scored)


def predict_store(request: PredictRequest, tell: Tell) -> Results:
    """Mean prediction of the runs for every trial of a store, for the request's, or for those with unseen labels.

    Raises ValueError as `evaluate_runs` does.
    """
    smoothing = parse_smoothing(request.smooth)
    opened = _open(request, tell)
    modalities = sorted({name for run in opened.runs for name in run.described.config.inputs})
    sources, others = unlabelled(opened.store, modalities, opened.task.labels.width)
    if request.trials is not None:
        sources = {name: source for name, source in sources.items() if name in request.trials}
        others = [name for name in others if name in request.trials]
    if others:
        tell(f"note: left out, since they do not have all of {', '.join(modalities)}: {preview(others)}")
    if request.without_seen:
        folds = [run.described.fold for run in opened.runs]
        seen = {name for fold in folds for name in (*fold.train, *fold.validation)} & sources.keys()
        sources = {name: source for name, source in sources.items() if name not in seen}
        if seen:
            tell(f"note: left out, since the runs have seen their labels: {preview(sorted(seen))}")
        if not sources:
            raise ValueError(
                f"the runs have seen the labels of every trial of {opened.store.path}; --seen takes them too"
            )
    everything = {run.folder: list(sources) for run in opened.runs}
    return _predict(request, opened, sources, everything, smoothing)


def _open(request: EvaluateRequest | PredictRequest, tell: Tell) -> _Opened:
    """Open the runs that are asked for, and the store, which is their own unless it is given."""
    room = room_of(request.run_config())
    runs = [open_run(folder, room.device) for folder in find_runs(request.runs)]
    task = joint_task(TASKS[run.described.config.task] for run in runs)
    if len(runs) > 1:
        tell(counted(len(runs), "run"))
    if early := [str(run.folder) for run in runs if not is_finished(run.folder)]:
        tell(f"note: not finished, used as they are after their last epoch: {preview(early)}")
    store = FeatureStore(request.store or _common({run.described.features.store for run in runs}, "--store"))
    learned = {name for run in runs for name in run.described.features.untrained}
    untrained = sorted({*untrained_features(store), *learned})
    if line := untrained_line(untrained):
        tell(line)
    return _Opened(runs, task, store, room, untrained)


def _common(values: set[str], option: str) -> str:
    if len(values) > 1:
        raise ValueError(f"the runs were trained with different ones ({preview(sorted(values))}); name one by {option}")
    return values.pop()


def _predict(
    request: EvaluateRequest | PredictRequest,
    opened: _Opened,
    sources: Mapping[str, TrialSource],
    wanted: Mapping[Path, Sequence[str]],
    smoothing: Smoothing,
    corpus: Corpus | None = None,
) -> Results:
    """Predict the trials that are `wanted` of each run, smoothed and clipped to the limits of the task, and record how.

    Raises ValueError without any, or on features of other settings or weights that the request does not allow.
    """
    runs, store = opened.runs, opened.store
    if not any(wanted.values()):
        raise ValueError(f"{store.path} has no trial with the features of the runs")
    for run in runs:
        if not request.allow_other_features:
            check_features(run, store, [sources[name].stored for name in wanted[run.folder]])
    predictions = predict_with(runs, store, sources, wanted, opened.room, request.run_config())
    trials = {name: predictions.task.finish(smooth(rows, smoothing)) for name, rows in predictions.trials.items()}
    sources = {name: source for name, source in sources.items() if name in trials}
    labels = {}
    if corpus is not None:
        labels = {"annotations": os.path.abspath(corpus.root), "labels_sha256": labels_digest(sources.values())}
    modalities = list(dict.fromkeys(name for run in runs for name in run.described.config.inputs))
    seen, _, _ = features_of(store, [source.stored for source in sources.values()], modalities)
    record = made(
        runs=[os.path.abspath(run.folder) for run in runs],
        store=location_of(store),
        fingerprints=fingerprints_of(seen),
        smoothing=str(smoothing),
        UNTRAINED=opened.untrained,
        **labels,
    )
    return Results(store, sources, replace(predictions, trials=trials), record)
