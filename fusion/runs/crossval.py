"""Runs over folds and seeds: each in its own folder, finished ones left alone, and the table at the end.

    OUT/                      one fold, one seed: the run itself
    OUT/fold0/seed0 …         else: a run each; OUT/crossval.{txt,md,csv,json} sums them up

Tested by tests/fusion/runs/test_crossval.py.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...batch.sharding import balanced
from ...features_store.disk.atomic import replace_file
from ...features_store.interchange.result_files import made
from ...shell.text import preview, text_table
from ..artifacts import state
from ..artifacts.folder import Description, is_empty, is_locked, read_description, write_description
from ..config import RunConfig, TrainConfig
from ..results.fold_scores import (
    CrossValidation,
    RunScore,
    cross_validation,
    cross_validation_cells,
    cross_validation_csv,
    cross_validation_json,
)
from ..results.tables import markdown_table
from ..settings import differences
from ..training.train import Outcome, Watcher, train
from .experiment import Checked, Experiment
from .identity import Differences, data_differences, setting_differences

_OF_A_GRID = re.compile(r"fold\d+|crossval\.(txt|md|csv|json)|\..*")
_SEED = re.compile(r"seed\d+")


@dataclass(frozen=True)
class RunSpec:
    """One run to do: fold, settings with its seed, folder."""

    fold: int
    config: TrainConfig
    folder: Path

    @property
    def name(self) -> str:
        """What it is called on the screen."""
        return f"fold {self.fold} seed {self.config.seed}"


def plan_runs(out: Path, folds: Sequence[int], seeds: Sequence[int], config: TrainConfig) -> list[RunSpec]:
    """The runs of a call, fold by fold.

    Raises ValueError where several are to go into the folder of one, or beside files that are of no runs.
    """
    alone = len(folds) == len(seeds) == 1
    if not alone and (out / "config.json").is_file():
        raise ValueError(f"{out} holds one run, and several are to be trained; name another --out")
    if not alone and (others := _files_of_others(out)):
        raise ValueError(f"{out} holds other files and no runs ({preview(others)}); name another --out")
    return [
        RunSpec(fold, replace(config, seed=seed), out if alone else out / f"fold{fold}" / f"seed{seed}")
        for fold in folds
        for seed in seeds
    ]


def _files_of_others(out: Path) -> list[str]:
    """What a folder holds that is of no runs; nothing where earlier calls have left runs in it."""
    if any(out.glob("fold*/seed*/config.json")):
        return []
    within = [path for path in out.glob("fold*/*") if not (_SEED.fullmatch(path.name) and is_empty(path))]
    beside = [path for path in out.glob("*") if not _OF_A_GRID.fullmatch(path.name)]
    return sorted(path.relative_to(out).as_posix() for path in (*beside, *within))


def shard_of(runs: Sequence[RunSpec], index: int, count: int) -> list[RunSpec]:
    """Part `index` of `count` of these runs, in their order: the same on every machine, whatever is done already."""
    part = set(balanced({run.name: 1 for run in runs}, count)[index])
    return [run for run in runs if run.name in part]


def differing(
    runs: Iterable[RunSpec], check: Callable[[tuple[int, ...]], Checked], run: RunConfig
) -> dict[RunSpec, Differences]:
    """Runs whose folder holds another one than is planned: other settings or, once it has learned, other data.

    `check` tells what these folds are now; it is asked only where there is a run to compare with. Raises ValueError
    as it does, and where a folder holds other files.
    """
    told: dict[RunSpec, Differences] = {}
    alike: list[RunSpec] = []
    for planned in runs:
        if is_empty(planned.folder):
            continue
        found = _found(planned)
        if settings := setting_differences(planned.folder, found, planned.config, planned.fold, run):
            told[planned] = settings
        elif has_learned(planned.folder):
            alike.append(planned)
    if alike:
        checked = check(tuple(sorted({planned.fold for planned in alike})))
        for planned in alike:
            now = checked.describe(planned.config, planned.fold)
            if data := data_differences(read_description(planned.folder), now):
                told[planned] = data
    return told


def without_features(told: Mapping[RunSpec, Differences]) -> dict[RunSpec, Differences]:
    """The same where features may be others."""
    return {planned: kept for planned, each in told.items() if (kept := each.without_features())}


def refusal(told: Mapping[RunSpec, Differences]) -> str:
    """What differs of the first of these runs, how many more there are, and what to do."""
    (planned, first), *more = told.items()
    one, several = ("does", "do") if first.settings else ("was", "were")
    others = f", and so {one if len(more) == 1 else several} {len(more)} more of these runs" if more else ""
    if first.settings or first.trials or first.labels:
        return f"{first.of(planned.folder)}{others}; --replace trains anew, or name another --out"
    allow = "--allow-other-features goes on regardless"
    return f"{first.of(planned.folder)}{others}; {allow}, --replace trains anew, or name another --out"


def has_learned(folder: Path) -> bool:
    """Whether the run in a folder has something to lose: a saved epoch, or its end."""
    return state.is_finished(folder) or state.has_state(folder)


def pending_runs(runs: Iterable[RunSpec], resume: bool, anew: Collection[RunSpec] = ()) -> list[RunSpec]:
    """Runs that are not finished, also those being trained, and those to begin `anew`.

    Raises ValueError on other files, or a run that may not go on. Whether a folder holds the run that is planned
    tells `differing`.
    """
    left = []
    for run in runs:
        if is_empty(run.folder) or run in anew:
            left.append(run)
            continue
        found = _found(run)
        done = state.is_finished(run.folder)
        if not done and not resume and not is_locked(run.folder):
            raise ValueError(f"{run.folder} holds a run that has not ended: --resume goes on, or name another --out")
        if not done or (found.config.max_epochs < run.config.max_epochs and resume):
            left.append(run)
    return left


def is_short(run: RunSpec) -> bool:
    """Whether a finished run was asked for fewer epochs than now, and has done them all."""
    epochs = state.epochs_done(run.folder)
    return read_description(run.folder).config.max_epochs <= epochs < run.config.max_epochs


def begin_run(folder: Path, described: Description, environment: Mapping[str, Any]) -> Description:
    """Make a run's folder; one whose run goes on keeps its statistics, any other is cleared of earlier results.

    Raises ValueError where the features of the run that goes on were of other widths.
    """
    if state.has_state(folder):
        found = read_description(folder)
        if found.features.widths != described.features.widths:
            raise ValueError(f"{folder} was trained on features of other widths than there are now; name another --out")
        described = replace(described, statistics=found.statistics)
        state.unmark_finished(folder)
    else:
        state.clear_results(folder)
    write_description(folder, described, environment)
    return described


def do_run(
    described: Description,
    folder: Path,
    experiment: Experiment,
    run: RunConfig,
    watcher: Watcher,
    keep: Callable[[Outcome], None],
) -> Outcome:
    """Train one run in its folder; it has finished when `keep` has written what comes of it.

    Raises ValueError where it cannot go on, and what torch raises.
    """
    outcome = train(described, experiment.data, run, folder, watcher)
    keep(outcome)
    state.write_finished(folder, outcome.reason, len(outcome.history))
    return outcome


def score_of(planned: RunSpec) -> RunScore:
    """The score of a finished run. Raises ValueError where its metrics.json cannot be read."""
    found = state.read_metrics(planned.folder)
    return RunScore(planned.fold, planned.config.seed, found["ccc_valence"], found["ccc_arousal"], found["epoch"])


def sum_up(out: Path, runs: Sequence[RunSpec], others: Callable[[], Sequence[RunSpec]]) -> CrossValidation | None:
    """The table over these runs and, below `out`, the finished `others` that belong to them, written there.

    As text, Markdown, CSV and JSON; None where there is no such run. Several calls may do so at once: each looks
    again after it has written, so that the last one to write has seen all runs.
    """
    written: dict[str, str] = {}
    about = made()
    while every := list({(run.fold, run.config.seed): run for run in [*others(), *runs]}.values()):
        described = [read_description(run.folder) for run in every]
        untrained = sorted({name for run in described for name in run.features.untrained})
        result = cross_validation((score_of(run) for run in every), untrained)
        files = dict(_files(result, {**about, **_data_of(out, every, described), "UNTRAINED": untrained}))
        if files == written:
            return result
        for name, content in files.items():
            replace_file(out / name, content.encode())
        written = files
    return None


def finished_below(out: Path, config: TrainConfig) -> list[RunSpec]:
    """Finished runs of earlier calls with these settings, seed and epochs aside."""
    found = []
    for folder in sorted(out.glob("fold*/seed*")):
        if state.is_finished(folder):
            described = read_description(folder)
            alike = replace(config, seed=described.config.seed, max_epochs=described.config.max_epochs)
            if not differences(alike, described.config):
                found.append(RunSpec(described.fold.number, described.config, folder))
    return found


def table_lines(result: CrossValidation) -> list[str]:
    """The table as text."""
    return [result.title, *text_table(cross_validation_cells(result))]


def _files(result: CrossValidation, about: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "crossval.txt", "\n".join([*table_lines(result), *result.warnings, ""])
    table = markdown_table(cross_validation_cells(result))
    yield "crossval.md", "\n\n".join([result.title, table, *(f"{line}\n" for line in result.warnings)])
    yield "crossval.csv", cross_validation_csv(result)
    yield "crossval.json", json.dumps({**cross_validation_json(result), "made": about}, indent=1) + "\n"


def _data_of(out: Path, runs: Sequence[RunSpec], described: Sequence[Description]) -> dict[str, Any]:
    """What the runs of a table have learned from."""
    return {
        "runs": [os.path.relpath(run.folder, out) for run in runs],
        "store": sorted({run.features.store for run in described}),
        "annotations": sorted({run.annotations for run in described}),
        "smoothing": "none",
    }


def _found(run: RunSpec) -> Description:
    """The run in a folder. Raises ValueError where there is none, but other files."""
    if not (run.folder / "config.json").is_file():
        raise ValueError(f"{run.folder} holds other files and no run; name another --out")
    return read_description(run.folder)
