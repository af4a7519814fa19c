"""Trained runs to predictions: one run, or the mean of several.

Tested by tests/fusion/inference/test_ensemble.py.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...features_store.records.provenance import unlike
from ...features_store.store import FeatureStore
from ...shell.progress import shown
from ...shell.text import counted
from ..artifacts.folder import Description, read_description
from ..artifacts.state import read_weights
from ..config import COLUMNS, RunConfig
from ..data.batches import Batches
from ..data.dataset import Dataset, load
from ..data.matching import TrialSource
from ..data.runtime import Room
from ..models.table import build
from ..results.smoothing import Smoothing, smooth
from ..runs.experiment import features_of
from ..training.stitch import by_trial, predict, valid_by_trial

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class TrainedRun:
    """A run's folder, what it is, and its best network."""

    folder: Path
    described: Description
    model: nn.Module


@dataclass(frozen=True)
class Predictions:
    """{trial: [T, C]} of the tasks `columns`, in [-1, 1].

    `valid` {trial: bool [T]}: rows with a feature, of those that the runs use, that was computed from real media.
    """

    columns: tuple[str, ...]
    trials: Mapping[str, Rows]
    valid: Mapping[str, NDArray[np.bool_]]


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """The runs in these folders: a folder that is a run, or all runs below it. Raises ValueError where none is."""
    found: list[Path] = []
    for folder in folders:
        runs = [folder] if (folder / "config.json").is_file() else sorted(_runs_below(folder))
        if not runs:
            raise ValueError(f"{folder} holds no run; name a folder that `avfuse train` made")
        found += runs
    return list({run.resolve(): run for run in found}.values())


def _runs_below(folder: Path) -> Iterator[Path]:
    """Runs below a folder, those behind links included; links that lead back end."""
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
        elif "config.json" in files:
            yield Path(here)
        seen.add(real)


def open_run(folder: Path, device: torch.device) -> TrainedRun:
    """A run with its network. Raises ValueError where its files are missing, broken or do not fit each other."""
    described = read_description(folder)
    config = described.config
    model = build(config.model, list(described.features.widths.values()), len(config.outputs))
    try:
        model.load_state_dict(read_weights(folder))
    except RuntimeError as error:
        raise ValueError(f"{folder / 'model.safetensors'} is not the network of its config.json: {error}") from error
    return TrainedRun(folder, described, model.to(device).eval())


def check_features(run: TrainedRun, store: FeatureStore, trials: Iterable[str]) -> None:
    """Raise ValueError where the store's features have other settings or weights than those the run has seen."""
    seen = run.described.features
    here, made = features_of(store, trials, run.described.config.modalities)
    other = Counter(each["fingerprint"] for each in here.values() if each["fingerprint"] not in seen.fingerprints)
    if other:
        learned, (now, _) = next(iter(seen.fingerprints)), *other.most_common(1)
        named = unlike(seen.made.get(learned, {}), made[now], "in the run", "in the store")
        told = f"{run.folder} has learned from features {', '.join(name[:12] for name in sorted(seen.fingerprints))}"
        count = ", ".join(f"{name[:12]} ({counted(count, 'trial')})" for name, count in other.most_common())
        raise ValueError(
            f"{told}, but {store.path} holds {count}, of other settings or weights{f' ({named})' if named else ''}; "
            "extract with the same, or say --allow-other-features"
        )


def _check_widths(run: TrainedRun, data: Dataset) -> None:
    seen, here = run.described.features.widths, dict(zip(data.modalities, data.widths, strict=True))
    if other := [name for name in here if here[name] != seen[name]]:
        told = ", ".join(f"{name} is {here[name]} wide, it has learned from {seen[name]}" for name in other)
        raise ValueError(f"{run.folder} cannot be used with these features: {told}")


def predict_with(
    runs: Sequence[TrainedRun],
    store: FeatureStore,
    sources: Mapping[str, TrialSource],
    wanted: Mapping[Path, Sequence[str]],
    room: Room,
    run_config: RunConfig,
) -> Predictions:
    """Mean prediction of each trial over the runs that are `wanted` for it ({folder: trials}).

    Runs of one modality list share one reading of the store. Tasks are averaged each over the runs that have it.
    """
    sums: dict[str, dict[str, list[Rows]]] = defaultdict(lambda: defaultdict(list))
    valid: dict[str, NDArray[np.bool_]] = {}
    by_modalities: dict[tuple[str, ...], list[TrainedRun]] = defaultdict(list)
    for run in runs:
        by_modalities[run.described.config.modalities].append(run)
    for modalities, alike in by_modalities.items():
        names = [name for name in sources if any(name in wanted[run.folder] for run in alike)]
        data = load(store, {name: sources[name] for name in names}, modalities, room, shown)
        for name, real in valid_by_trial(data, names).items():
            valid[name] = real | valid.get(name, False)
        for run in alike:
            _check_widths(run, data)
            config, trials = run.described.config, wanted[run.folder]
            batches = Batches(data, run.described.statistics, config)
            windows = data.windows(trials, config)
            rows = predict(run.model, data, batches, windows, len(config.outputs), run_config.precision)
            for name, values in by_trial(data, trials, rows).items():
                for column, task in enumerate(config.outputs):
                    sums[name][task].append(values[:, column])
        del data, batches  # before the next modalities ask how much room there is
    columns = tuple(task for task in COLUMNS if any(task in of for of in sums.values()))
    lacking = [name for name, of in sums.items() if set(of) != set(columns)]
    if lacking:
        raise ValueError(
            f"{lacking[0]}: no run predicts its {' and '.join(sorted(set(columns) - set(sums[lacking[0]])))}"
        )
    means = {name: np.stack([np.mean(of[task], axis=0) for task in columns], axis=1) for name, of in sums.items()}
    return Predictions(columns, means, {name: valid[name] for name in means})


def smoothed(predictions: Predictions, smoothing: Smoothing) -> Predictions:
    """Predictions smoothed over time, clipped again to [-1, 1]."""
    trials = {name: smooth(rows, smoothing).clip(-1, 1) for name, rows in predictions.trials.items()}
    return replace(predictions, trials=trials)
