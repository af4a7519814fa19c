"""Runs on trials they have not learned from, and runs on a store without labels.

Tested by tests/fusion/test_evaluate.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..features_store.corpus import open_corpus
from ..features_store.status import untrained_features
from ..features_store.store import FeatureStore
from ..features_store.text import counted, untrained_line
from .checkpoint import is_finished
from .config import RunConfig
from .devices import Room, room_of
from .ensemble import Predictions, TrainedRun, check_features, find_runs, open_run, predict_with, smoothed
from .manifest import some
from .report import Report, report
from .smoothing import parse_smoothing
from .sources import TrialSource, match_trials, unlabelled

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Evaluation:
    """Predictions of held-out trials and what they are worth."""

    store: FeatureStore
    sources: Sequence[TrialSource]
    predictions: Predictions
    report: Report


def evaluate_runs(
    folders: Sequence[Path],
    store: str | None,
    annotations: Path | None,
    smooth: str,
    run_config: RunConfig,
    allow_other: bool,
    tell: Tell,
) -> Evaluation:
    """Score runs on their validation trials; a trial that several hold out gets the mean of their predictions.

    Store and annotations are the runs' own unless given. Raises ValueError where they are not there, or where
    their features have other settings or weights than the runs have seen, unless `allow_other`.
    """
    smoothing, room = parse_smoothing(smooth), room_of(run_config)
    runs = _open(folders, room, tell)
    opened = FeatureStore(store or _common({run.described.features.store for run in runs}, "--store"))
    corpus = open_corpus(annotations or Path(_common({run.described.annotations for run in runs}, "--annotations")))
    _say_untrained(opened, runs, tell)
    names = sorted({name for run in runs for name in run.described.fold.validation})
    if unknown := [name for name in names if name not in corpus.files]:
        raise ValueError(f"{corpus.root} has no labels of {some(unknown)}, which the runs hold out")
    modalities = sorted({name for run in runs for name in run.described.config.modalities})
    matched = match_trials(opened, corpus, names, modalities)
    if matched.without_features:
        tell(f"note: no features of {some(list(matched.without_features))}; the scores are without them")
    held_out = {run.folder: [name for name in run.described.fold.validation if name in matched.trials] for run in runs}
    predictions = _predict(runs, opened, matched.trials, held_out, room, run_config, allow_other)
    predictions = smoothed(predictions, smoothing)
    sources = [source for name, source in matched.trials.items() if name in predictions.trials]
    return Evaluation(opened, sources, predictions, report(sources, predictions.trials, predictions.columns))


def predict_store(
    folders: Sequence[Path], store: str, smooth: str, run_config: RunConfig, allow_other: bool, tell: Tell
) -> Predictions:
    """Mean prediction of the runs for every trial of a store. Raises ValueError as `evaluate_runs` does."""
    smoothing, room = parse_smoothing(smooth), room_of(run_config)
    runs = _open(folders, room, tell)
    opened = FeatureStore(store)
    _say_untrained(opened, runs, tell)
    modalities = sorted({name for run in runs for name in run.described.config.modalities})
    sources, others = unlabelled(opened, modalities)
    if others:
        tell(f"note: left out, since they have not all of {', '.join(modalities)}: {some(others)}")
    everything = {run.folder: list(sources) for run in runs}
    return smoothed(_predict(runs, opened, sources, everything, room, run_config, allow_other), smoothing)


def _open(folders: Sequence[Path], room: Room, tell: Tell) -> list[TrainedRun]:
    runs = [open_run(folder, room.device) for folder in find_runs(folders)]
    if len(runs) > 1:
        tell(counted(len(runs), "run"))
    if early := [str(run.folder) for run in runs if not is_finished(run.folder)]:
        tell(f"note: not finished, used as they are after their last epoch: {some(early)}")
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
        raise ValueError(f"the runs were trained with different places ({some(sorted(values))}); name one by {option}")
    return values.pop()


def _say_untrained(store: FeatureStore, runs: Sequence[TrainedRun], tell: Tell) -> None:
    """Once, whether the store has such features or the runs have learned from them."""
    learned = {name for run in runs for name in run.described.features.untrained}
    if line := untrained_line(sorted({*untrained_features(store), *learned})):
        tell(line)
