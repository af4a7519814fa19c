"""Runs over folds and seeds: each in its own folder, finished ones left alone, and the table at the end.

    OUT/                      one fold, one seed: the run itself
    OUT/fold0/seed0 …         several: a run each; OUT/crossval.{txt,md,csv,json} sums them up

Tested by tests/fusion/runs/test_crossval.py.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...batch.sharding import balanced
from ...features_store.disk.atomic import replace_file
from ...features_store.interchange.result_files import made
from ...features_store.records.leaks import leak_line
from ...shell.text import preview, text_table
from ..artifacts import state
from ..artifacts.folder import Description, is_empty, is_locked, read_description, read_json
from ..config import RunConfig, TrainConfig
from ..finetuning.learner import leaks_of_base
from ..results.fold_scores import (
    RunScore,
    cross_validation,
    cross_validation_cells,
    cross_validation_csv,
    cross_validation_json,
)
from ..results.tables import latex_table, markdown_table
from ..settings import differences
from ..tasks.table import TASKS
from .experiment import Checked, DataKey, data_key
from .identity import Differences, data_differences, setting_differences

_OF_A_GRID = re.compile(r"fold\d+|crossval\.(txt|md|csv|json)|\..*")
_FOLD = re.compile(r"fold\d+")
_SEED = re.compile(r"seed\d+")

Check = Callable[[TrainConfig, tuple[int, ...]], Checked]


@dataclass(frozen=True)
class RunSpec:
    """One run to do: fold, settings with its seed, folder; in a comparison the cell that it belongs to."""

    fold: int
    config: TrainConfig
    folder: Path
    cell: str = ""

    @property
    def name(self) -> str:
        """What it is called on the screen."""
        return f"{self.cell} fold {self.fold} seed {self.config.seed}".lstrip()


def plan_runs(
    out: Path, folds: Sequence[int], seeds: Sequence[int], config: TrainConfig, cell: str = ""
) -> list[RunSpec]:
    """The runs of a call, fold by fold; those of a `cell` of a comparison have folders of their own, even one alone.

    Raises ValueError if several would go into the folder of one, or beside files that do not belong to runs.
    """
    alone = len(folds) == len(seeds) == 1 and not cell
    if not alone and (out / "config.json").is_file():
        raise ValueError(f"{out} holds one run, and several are to be trained; name another --out")
    if not alone and not any(out.glob("fold*/seed*/config.json")):  # else earlier calls have left runs in it
        others = [path for path in out.glob("*") if not _OF_A_GRID.fullmatch(path.name)]
        others += [path for path in out.glob("fold*/*") if not (_SEED.fullmatch(path.name) and is_empty(path))]
        if others:
            names = sorted(path.relative_to(out).as_posix() for path in others)
            raise ValueError(
                f"{out} holds other files and is not a folder of runs ({preview(names)}); name another --out"
            )
    return [
        RunSpec(fold, replace(config, seed=seed), out if alone else out / f"fold{fold}" / f"seed{seed}", cell)
        for fold in folds
        for seed in seeds
    ]


def shard_of(runs: Sequence[RunSpec], index: int, count: int) -> list[RunSpec]:
    """Part `index` of `count` of these runs, in their order: the same on every machine, whatever is done already."""
    part = set(balanced({run.name: 1 for run in runs}, count)[index])
    return [run for run in runs if run.name in part]


def differing(
    runs: Iterable[RunSpec],
    check: Check,
    run: RunConfig,
    allow_other_features: bool = False,
) -> dict[RunSpec, Differences]:
    """Runs whose folder holds another one than is planned: other settings or, once it has learned, other data.

    `check` says what data of such settings is now, on these folds; it is called only if there is a run to compare
    with. Raises ValueError as it does, and if a folder holds other files.
    """
    found: dict[RunSpec, Differences] = {}
    alike: dict[DataKey, list[RunSpec]] = {}
    for spec in runs:
        if is_empty(spec.folder):
            continue
        if settings := setting_differences(spec.folder, _found(spec), spec.config, spec.fold, run):
            found[spec] = settings
        elif state.is_finished(spec.folder) or (spec.folder / state.TRAINING).is_file():
            alike.setdefault(data_key(spec.config), []).append(spec)
    for specs in alike.values():
        checked = check(specs[0].config, tuple(sorted({spec.fold for spec in specs})))
        for spec in specs:
            now = checked.describe(spec.config, spec.fold)
            if data := data_differences(read_description(spec.folder), now):
                found[spec] = data
    if allow_other_features:
        return {spec: kept for spec, each in found.items() if (kept := each.without_features())}
    return found


def refusal(differences: Mapping[RunSpec, Differences]) -> str:
    """What differs of the first of these runs, how many more there are, and what to do."""
    (spec, first), *more = differences.items()
    one, several = ("does", "do") if first.settings else ("was", "were")
    others = f", and so {one if len(more) == 1 else several} {len(more)} more of these runs" if more else ""
    if first.settings or first.trials or first.labels:
        return f"{first.of(spec.folder)}{others}; --replace trains anew, or name another --out"
    allow = "--allow-other-features goes on regardless"
    return f"{first.of(spec.folder)}{others}; {allow}, --replace trains anew, or name another --out"


def pending_runs(runs: Iterable[RunSpec], resume: bool, anew: Collection[RunSpec] = ()) -> list[RunSpec]:
    """Runs that are not finished, also those being trained, and those to begin `anew`.

    Raises ValueError on other files, or a run that may not go on. Whether a folder holds the run that is planned is
    for `differing` to say.
    """
    pending = []
    for run in runs:
        if is_empty(run.folder) or run in anew:
            pending.append(run)
            continue
        found = _found(run)
        done = state.is_finished(run.folder)
        if not done and not resume and not is_locked(run.folder):
            raise ValueError(f"{run.folder} holds a run that has not ended: --resume goes on, or name another --out")
        if not done or (found.config.max_epochs < run.config.max_epochs and resume):
            pending.append(run)
    return pending


def leak_of(runs: Mapping[Path, Description]) -> str:
    """What is wrong with runs whose features come from weights tuned on their validation trials; empty if none do.

    So it is with a run's own networks that began from such weights. Raises ValueError, OSError on their files.
    """
    found: dict[str, list[str]] = {}
    for folder, run in runs.items():
        held_out = run.fold.validation
        stored, own = run.features.leaks(held_out), leaks_of_base(folder, run.config, held_out)
        for feature, trials in (*stored.items(), *own.items()):
            found[feature] = sorted({*found.get(feature, []), *trials})
    line = leak_line(found, "validation trial")
    return f"{line}: these scores say nothing about new trials" if line else ""


def is_short(run: RunSpec) -> bool:
    """Whether a finished run was asked for fewer epochs than now, and has done them all."""
    epochs = int(read_json(run.folder, state.FINISHED)["epochs"])
    return read_description(run.folder).config.max_epochs <= epochs < run.config.max_epochs


def sum_up(
    out: Path,
    runs: Sequence[RunSpec],
    config: TrainConfig,
    belongs: Callable[[RunSpec], bool],
    alone: bool = False,
) -> list[str]:
    """Write the table over these runs and the finished ones of other calls below `out`, if each of those `belongs`.

    Only runs with these settings, except for seed and epochs, are asked about. The table is written as text, whose
    lines are returned without its warnings, Markdown, LaTeX, CSV and JSON; nothing if there is no run. Several calls
    may do so at once: each looks again after it has written, so that the last one to write has seen all runs. The table
    of a run that is `alone` in `out` is returned only.
    """
    task = TASKS[config.task]
    keys = [score.key for score in task.scores]
    written: dict[str, str] = {}
    about = made()
    while True:
        others = []
        for folder in [] if alone else sorted(out.glob("fold*/seed*")):
            if state.is_finished(folder):
                found = read_description(folder)
                alike = replace(config, seed=found.config.seed, max_epochs=found.config.max_epochs)
                if not differences(alike, found.config):
                    others.append(RunSpec(found.fold.number, found.config, folder))
        every = list({(run.fold, run.config.seed): run for run in [*filter(belongs, others), *runs]}.values())
        if not every:
            return []
        described = {run.folder: read_description(run.folder) for run in every}
        untrained = sorted({name for run in described.values() for name in run.features.untrained})
        scores = []
        for run in every:
            metrics = state.read_metrics(run.folder, keys)
            own = {key: metrics[key] for key in keys}
            scores.append(RunScore(run.fold, run.config.seed, own, metrics["epoch"]))
        result = cross_validation(scores, task, untrained, leak_of(described))
        details = {
            **about,
            "runs": [os.path.relpath(run.folder, out) for run in every],
            "store": sorted({run.features.store for run in described.values()}),
            "annotations": sorted({run.annotations for run in described.values()}),
            "smoothing": "none",
            "UNTRAINED": untrained,
        }
        cells = cross_validation_cells(result)
        lines = [result.title, *text_table(cells)]
        files = {
            "crossval.txt": "\n".join([*lines, *result.warnings, ""]),
            "crossval.md": "\n\n".join(
                [result.title, markdown_table(cells), *(f"{line}\n" for line in result.warnings)]
            ),
            "crossval.tex": latex_table(
                cells, [result.title, *result.warnings], foot=len(cells) > len(result.folds) + 1
            ),
            "crossval.csv": cross_validation_csv(result),
            "crossval.json": json.dumps({**cross_validation_json(result), "made": details}, indent=1) + "\n",
        }
        if alone or files == written:
            return lines
        for name, content in files.items():
            replace_file(out / name, content.encode())
        written = files


def latest_run(below: Path) -> Path:
    """The folder of the run below that finished last; of a call of several runs the folder of all of them.

    When a run finished is the time of its finished.json, which a second call that finds nothing to do leaves alone:
    typing an earlier command again does not make its run the latest. Runs that have not finished do not count.

    Raises ValueError, with what to type, where none has finished.
    """
    finished: dict[Path, int] = {}
    for parent, folders, files in os.walk(below):
        if {state.FINISHED, "config.json"} <= set(files):  # what was learned from pictures is no run
            finished[Path(parent)] = Path(parent, state.FINISHED).stat().st_mtime_ns
            folders.clear()  # what a run holds is no run
    if not finished:
        raise ValueError(f"no run below {below} has finished; give --run, or run `avfuse train --fold K` first")
    last = max(sorted(finished), key=lambda folder: finished[folder])
    if last != below and _SEED.fullmatch(last.name) and _FOLD.fullmatch(last.parent.name) and last.parent != below:
        return last.parent.parent
    return last


def _found(run: RunSpec) -> Description:
    """The run in a folder. Raises ValueError if it holds other files instead."""
    if not (run.folder / "config.json").is_file():
        raise ValueError(f"{run.folder} holds other files and is not the folder of a run; name another --out")
    return read_description(run.folder)
