"""Trained runs to predictions: one run, or the mean of several.

Tested by tests/fusion/inference/test_ensemble.py.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from ..config import RunConfig
from ..data.batches import Batches
from ..data.dataset import load, shape_text
from ..data.matching import TrialSource
from ..data.runtime import Room
from ..data.views import View
from ..finetuning.learner import open_tuned
from ..finetuning.rows import embed_trials
from ..models.table import build
from ..runs.experiment import features_of, fingerprints_of
from ..tasks.table import TASKS, joint_task
from ..tasks.task import Task
from ..training.stitch import by_trial, predict, valid_by_trial

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class TrainedRun:
    """A run's folder, its description, and its best network."""

    folder: Path
    described: Description
    model: nn.Module


@dataclass(frozen=True)
class Predictions:
    """{trial: [T, C]} of a task, within its limits.

    `valid` {trial: bool [T]}: rows with a feature, of those that the runs use, that was computed from real media.
    `spread` {trial: [T, C]}: the largest prediction of the runs less the smallest; NaN where there is only one.
    """

    task: Task
    trials: Mapping[str, Rows]
    valid: Mapping[str, NDArray[np.bool_]]
    spread: Mapping[str, Rows]


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """The runs in these folders: a folder that is a run, or all runs below it. Raises ValueError if one has none."""
    found: list[Path] = []
    for folder in folders:
        runs = [folder] if (folder / "config.json").is_file() else []
        if not runs:
            seen: set[str] = set()
            for parent, folders_in_it, files in os.walk(folder, followlinks=True):
                real = os.path.realpath(parent)
                if real in seen:  # a link that leads back
                    folders_in_it.clear()
                elif "config.json" in files:
                    runs.append(Path(parent))
                    folders_in_it.clear()  # what a run holds is no run: tuned networks have a config.json too
                seen.add(real)
        if not runs:
            raise ValueError(f"{folder} does not hold a run; name a folder that `avfuse train` made")
        found += sorted(runs)
    return list({run.resolve(): run for run in found}.values())


def open_run(folder: Path, device: torch.device) -> TrainedRun:
    """A run with its network. Raises ValueError if its files are missing, broken or do not fit each other."""
    described = read_description(folder)
    model = build(described.config, list(described.features.shapes.values()))
    try:
        model.load_state_dict(read_weights(folder))
    except RuntimeError as error:
        raise ValueError(f"{folder / 'model.safetensors'} is not the network of its config.json: {error}") from error
    return TrainedRun(folder, described, model.to(device).eval())


def check_features(run: TrainedRun, store: FeatureStore, trials: Iterable[str]) -> None:
    """Raise ValueError if the store's features have other settings or weights than those the run has learned from."""
    learned = run.described.features
    seen, made, _ = features_of(store, trials, run.described.config.inputs)
    for modality, counts in fingerprints_of(seen).items():
        known = learned.fingerprints.get(modality, {})
        other = {name: count for name, count in counts.items() if name not in known}
        if other:
            first, now = next(iter(known), ""), next(iter(other))
            differences = unlike(learned.made.get(first, {}), made[now], "in the run", "in the store")
            names = ", ".join(sorted(name[:12] for name in known))
            count = ", ".join(f"{name[:12]} ({counted(count, 'trial')})" for name, count in other.items())
            raise ValueError(
                f"{run.folder} has learned from {modality} {names}, but {store.path} holds {count}, of other settings "
                f"or weights{f' ({differences})' if differences else ''}; extract {modality} with the same, or say "
                "--allow-other-features"
            )


def predict_with(
    runs: Sequence[TrainedRun],
    store: FeatureStore,
    sources: Mapping[str, TrialSource],
    wanted: Mapping[Path, Sequence[str]],
    room: Room,
    run_config: RunConfig,
) -> Predictions:
    """Mean prediction of each trial over the runs that are `wanted` for it ({folder: trials}).

    Runs that read the same rows share one reading of the store. Columns are averaged each over the runs that have it.
    Raises ValueError on runs that have learned from different labels.
    """
    task = joint_task(TASKS[run.described.config.task] for run in runs if wanted[run.folder])
    sums: dict[str, dict[str, list[Rows]]] = defaultdict(lambda: defaultdict(list))
    valid: dict[str, NDArray[np.bool_]] = {}
    by_rows: dict[tuple[Any, ...], list[TrainedRun]] = defaultdict(list)
    for run in runs:
        config, learned = run.described.config, run.described.features.shapes
        views = tuple((name, View(stored, *learned[name])) for name, stored in config.views.items())
        by_rows[config.modalities, config.speech_above, views].append(run)
    for (modalities, speech_above, views), alike in by_rows.items():
        names = [name for name in sources if any(name in wanted[run.folder] for run in alike)]
        of_these = {name: sources[name] for name in names}
        data = load(store, of_these, modalities, room, shown, speech_above=speech_above, views=dict(views))
        for name, real in valid_by_trial(data, names).items():
            valid[name] = real | valid.get(name, False)
        for run in alike:
            config, trials = run.described.config, wanted[run.folder]
            learned = run.described.features.shapes
            if other := [
                f"{name} is {shape_text(shape)} wide, it has learned from {shape_text(learned[name])}"
                for name, shape in zip(data.modalities, data.shapes, strict=True)
                if shape != learned[name]
            ]:
                raise ValueError(f"{run.folder} cannot be used with these features: {', '.join(other)}")
            seen = data
            if config.views:  # a tuned run brings the networks that make its rows
                tuned = open_tuned(run.folder, config, room.device)
                seen = embed_trials(data, tuned, trials, run_config.micro_batch_rows, run_config.precision)
            batches = Batches(seen, run.described.statistics, config)
            windows = seen.windows(trials, config)
            rows = predict(run.model, seen, batches, windows, TASKS[config.task], run_config.precision)
            for name, values in by_trial(seen, trials, rows).items():
                for at, column in enumerate(config.outputs):
                    sums[name][column].append(values[:, at])
        del data, seen, batches  # before the next modalities ask how much room there is
    columns = task.columns
    lacking = [name for name, of in sums.items() if set(of) != set(columns)]
    if lacking:
        raise ValueError(
            f"{lacking[0]}: no run predicts its {' and '.join(sorted(set(columns) - set(sums[lacking[0]])))}"
        )
    means = {name: np.stack([np.mean(of[column], axis=0) for column in columns], axis=1) for name, of in sums.items()}
    apart = {
        name: np.stack([np.ptp(of[each], axis=0) if len(of[each]) > 1 else of[each][0] * np.nan for each in columns], 1)
        for name, of in sums.items()
    }
    return Predictions(task, means, {name: valid[name] for name in means}, apart)
