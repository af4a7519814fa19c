"""Runs as a report shows them: what each says of a trial, how well, how it learned, and how runs compare.

    --run RUN                   one system: a run, or all runs below the folder
    --run OF_COMPARE            a system a cell of compare.json
    a trial that runs hold out  ─► the mean of their own predictions files
    a trial they have not seen  ─► the mean of what their networks say now
    a trial they learned from, or that a feature's weights were tuned on   ─► nothing, or with --seen the same

Tested by tests/apps/report/test_systems.py.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...features_store.labels.corpus import open_corpus
from ...features_store.records.leaks import leaks
from ...features_store.schema import TIME, plain_name
from ...features_store.store import FeatureStore
from ...features_store.trial import Trial
from ...fusion.artifacts.folder import Description, read_description, read_json
from ...fusion.artifacts.state import is_finished, read_metrics
from ...fusion.config import RunConfig
from ...fusion.data.matching import TrialSource
from ...fusion.data.runtime import Room, room_of
from ...fusion.finetuning.learner import leaks_of_base
from ...fusion.inference.ensemble import TrainedRun, check_features, find_runs, open_run, predict_with
from ...fusion.results.comparison import scores_in
from ...fusion.results.prediction_files import read_prediction, trial_path
from ...fusion.runs.experiment import features_of
from ...fusion.tasks.table import TASKS, joint_task
from ...fusion.tasks.task import Scores, Task
from ...shell.text import preview
from .truth import Truth, TruthOf

HELD_OUT, UNSEEN, LEARNED, TUNED = "held out", "not seen", "learned from", "weights tuned on it"
MOST_SYSTEMS = 12


@dataclass(frozen=True)
class Said:
    """What a system says of a trial: `values` [N, C] of its task's columns at the label rows, and its scores."""

    values: NDArray[np.float32]
    how: str
    scores: Scores


@dataclass
class System:
    """One or several runs that are shown as one; networks are opened when they are first needed."""

    name: str
    runs: Mapping[Path, Description]
    task: Task
    config: RunConfig
    truth: Truth | None
    store: FeatureStore
    seen: bool
    allow_other_features: bool
    _networks: dict[Path, TrainedRun] = field(default_factory=dict)
    _room: Room | None = None

    @property
    def untrained(self) -> list[str]:
        """Features that its runs have learned from and that come from random networks, sorted."""
        return sorted({name for described in self.runs.values() for name in described.features.untrained})

    def lacks(self, trial: Trial) -> list[str]:
        """Features that its runs take and the trial does not have, sorted."""
        return sorted({name for described in self.runs.values() for name in described.config.inputs} - set(trial))

    def say(self, trial: Trial, label: TruthOf | None = None) -> Said | None:
        """What the runs that hold a trial out say of it, else those that have not seen it; None where none may.

        `label`: what it is scored by. Raises ValueError where features are of other settings or weights than the runs
        have learned from, unless that is allowed.
        """
        groups: dict[str, list[Path]] = {HELD_OUT: [], UNSEEN: [], LEARNED: []}
        for folder, described in self.runs.items():
            fold = described.fold
            learned_from = {*fold.train, *described.extra.get("trials", ())}
            how = next(
                (h for h, n in ((HELD_OUT, fold.validation), (LEARNED, learned_from)) if _among(trial, n)), UNSEEN
            )
            groups[how].append(folder)
        how = next((each for each in (HELD_OUT, UNSEEN) if groups[each]), LEARNED)
        inputs = sorted({name for folder in groups[how] for name in self.runs[folder].config.inputs})
        now, _, tuned = features_of(self.store, [trial.name], inputs)
        leaking = leaks(tuned, {trial.name: now[trial.name]["fingerprints"]})
        begun = any(leaks_of_base(folder, self.runs[folder].config, [trial.name]) for folder in groups[how])
        says = TUNED if (leaking or begun) and how != LEARNED else how
        if says in (LEARNED, TUNED) and not self.seen:
            return None
        rows = trial.rows if label is None else len(label.labelled)
        width = self.task.labels.width
        labels = np.zeros((rows, width), np.float32) if label is None else label.labels
        flags = np.zeros(rows, np.bool_) if label is None else label.labelled
        source = TrialSource(trial.name, trial.name, labels, flags)
        written = {folder: self._written(folder, trial, rows) for folder in groups[how]}
        sums = [values for values in written.values() if values is not None]
        if left := [folder for folder, values in written.items() if values is None]:
            modalities = {name for folder in left for name in self.runs[folder].config.inputs}
            if not rows or not {TIME, *modalities} <= set(trial):
                return None
            found = self._predict(left, source)
            sums += [found] * len(left)
        values = self.task.finish(np.stack(sums).mean(axis=0, dtype=np.float64).astype(np.float32))
        scores = self.task.scorer(values, labels, flags) if int(flags.sum()) >= self.task.least_rows else {}
        return Said(values, says, scores)

    def _written(self, folder: Path, trial: Trial, rows: int) -> NDArray[np.float32] | None:
        """The run's own predictions of a trial it holds out, while they are of these features and rows."""
        described = self.runs[folder]
        now, _, _ = features_of(self.store, [trial.name], described.config.inputs)
        before = described.features.trials.get(trial.name, {})
        path = trial_path(folder / "predictions", trial.name, ".txt")
        if not path.is_file() or before.get("sha256") != now[trial.name]["sha256"]:
            return None
        columns, values = read_prediction(path)
        if set(columns) != set(self.task.columns) or len(values) != rows:
            return None
        return values[:, [columns.index(each) for each in self.task.columns]].astype(np.float32)

    def _predict(self, folders: Sequence[Path], source: TrialSource) -> NDArray[np.float32]:
        self._room = self._room or room_of(self.config)
        for folder in folders:
            self._networks[folder] = self._networks.get(folder) or open_run(folder, self._room.device)
        runs = [self._networks[folder] for folder in folders]
        if not self.allow_other_features:
            for run in runs:
                check_features(run, self.store, [source.stored])
        wanted = {folder: [source.name] for folder in folders}
        with torch.inference_mode():
            found = predict_with(runs, self.store, {source.name: source}, wanted, self._room, self.config)
        at = [found.task.columns.index(each) for each in self.task.columns]
        return found.trials[source.name][:, at]


def open_systems(
    folders: Sequence[Path],
    store: FeatureStore,
    annotations: Path | None,
    device: str,
    seen: bool,
    allow_other_features: bool,
) -> list[System]:
    """A system for each folder, and for each cell of a comparison; labels are the runs' own unless given.

    Raises ValueError where a folder does not hold a run, where runs of one folder learn different labels, and for more
    systems than a page can show.
    """
    systems = []
    named = list(_named(folders))
    if len(named) > MOST_SYSTEMS:
        raise ValueError(
            f"a report shows at most {MOST_SYSTEMS} systems, got {len(named)}: {preview([n for n, _ in named])}"
        )
    truths: dict[tuple[str, str], Truth] = {}
    for name, runs in named:
        described = {folder: read_description(folder) for folder in runs}
        task = joint_task(TASKS[each.config.task] for each in described.values())
        places = {each.annotations for each in described.values()} if annotations is None else {str(annotations)}
        place = min(places)
        if len(places) == 1 and (place, task.labels.name) not in truths and (annotations or Path(place).is_dir()):
            truths[place, task.labels.name] = Truth(open_corpus(Path(place), task.labels), store)
        truth = truths.get((place, task.labels.name)) if len(places) == 1 else None
        config = RunConfig(device=device)
        systems.append(System(name, described, task, config, truth, store, seen, allow_other_features))
    return systems


def _named(folders: Sequence[Path]) -> Iterator[tuple[str, list[Path]]]:
    """Systems by the shortest ends of their paths that tell them apart."""
    found: list[tuple[Path, list[Path]]] = []
    for folder in folders:
        if (folder / "compare.json").is_file():
            runs = comparison_in(folder).get("runs", [])
            for cell in dict.fromkeys(run["cell"] for run in runs if "/" not in run["cell"]):
                found.append((folder / cell, [folder / run["folder"] for run in runs if run["cell"] == cell]))
        else:
            found.append((folder, find_runs([folder])))
    parts = [Path(os.path.abspath(folder)).parts for folder, _ in found]
    for own, (_, runs) in zip(parts, found, strict=True):
        length = next(
            n for n in range(1, len(own) + 1) if n == len(own) or [p[-n:] for p in parts].count(own[-n:]) == 1
        )
        yield "/".join(own[-length:]), runs


def comparison_in(folder: Path) -> dict[str, Any]:
    """compare.json of a folder; empty without. Raises ValueError if it is broken."""
    return read_json(folder, "compare.json") if (folder / "compare.json").is_file() else {}


def runs_page(systems: Sequence[System], folders: Sequence[Path]) -> dict[str, Any]:
    """What the page of the runs shows: of each run its fold, seed, scores and curves; comparisons with intervals.

    Of each system also how many runs have ended, with the mean and the deviation of their scores.
    """
    shown: list[dict[str, Any]] = []
    for system in systems:
        titles = {score.key: system.task.title_of(score) for score in system.task.tabled}
        rows: list[dict[str, Any]] = []
        for folder, described in system.runs.items():
            history: list[dict[str, Any]] = []
            if (folder / "history.csv").is_file():
                with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
                    history = [{key: _number(text) for key, text in row.items()} for row in csv.DictReader(file)]
            metrics = read_metrics(folder) if (folder / "metrics.json").is_file() else {}
            of_run = {"folder": str(folder), "fold": described.fold.number, "seed": described.config.seed}
            scores = scores_in(metrics)
            listed = {"P": scores.get("P"), **{title: scores.get(key) for key, title in titles.items()}}
            lines = {key: [row.get(key) for row in history] for key in ("epoch", "loss", "P")}
            states = {"epoch": metrics.get("epoch"), "epochs": len(history), "finished": is_finished(folder)}
            rows.append({**of_run, **states, "scores": listed, "curves": lines})
        first = next(iter(system.runs.values()))
        about = {"preset": first.config.preset, "task": first.config.task, "features": ", ".join(first.config.inputs)}
        about |= {"store": first.features.store, "annotations": first.annotations}
        ended = [run["scores"] for run in rows if run["finished"]]
        whole = {title: [each[title] for each in ended] for title in rows[0]["scores"] if ended}
        known = {title: np.array(values) for title, values in whole.items() if None not in values}
        shown.append(
            {
                **{"name": system.name, "runs": rows, "about": about, "untrained": system.untrained},
                "ended": len(ended),
                "mean": {title: float(values.mean()) for title, values in known.items()},
                "sd": {title: float(values.std(ddof=1)) for title, values in known.items() if len(values) > 1},
            }
        )
    compared = []
    named = {score.key: system.task.title_of(score) for system in systems for score in system.task.tabled}
    for folder in folders:
        if content := comparison_in(folder):
            scored = {key for cell in content.get("cells", []) for key in cell.get("mean", {})}
            titles = {"P": "P", **{key: title for key, title in named.items() if key in scored}}
            compared.append({"folder": str(folder), "scores": titles, **content})
    columns = list(dict.fromkeys(title for each in shown for title in each["runs"][0]["scores"]))
    return {"systems": shown, "comparisons": compared, "titles": columns}


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "nan")
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def _among(trial: Trial, names: Sequence[str] | set[str]) -> bool:
    """Whether these are the names of a trial too: to the letter, or by the last part that labels and stores share."""
    if trial.name in names:
        return True
    own = plain_name(trial.name).rpartition("/")[2]
    return any(plain_name(name).rpartition("/")[2] == own for name in names)
