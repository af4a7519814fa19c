"""A comparison: every cell of a grid on the same folds and seeds, each run as `train` would do it, and what they say.

    OUT/<cell>/fold<K>/seed<S>                   a run, as `train` leaves it
    OUT/s4-window/<cell>/fold<K>/seed<S>         the same under S4's protocol, if that was asked for
    OUT/compare.{txt,md,tex,csv,json,png}        table, differences with intervals, chart; every run

Tested by tests/fusion/runs/test_compare.py.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ...features_store.disk.atomic import replace_file
from ...features_store.interchange.result_files import made
from ...shell.progress import say
from ...shell.text import counted, preview, text_table, untrained_line
from ..artifacts.folder import read_description, read_json
from ..artifacts.state import FINISHED, read_metrics
from ..config import TrainConfig
from ..requests import CompareRequest
from ..results.bootstrap import LEVEL, Runs, Scorer, paired_differences, scorer_of
from ..results.comparison import (
    FEW_TRIALS,
    CellScores,
    Difference,
    RunOutcome,
    comparison_cells,
    comparison_csv,
    difference_cells,
    scores_in,
    sum_up_cell,
)
from ..results.plots import comparison_plot
from ..results.prediction_files import read_prediction, trial_path
from ..results.tables import latex_table, markdown_table
from ..settings import as_json, names_of, preset, with_settings
from ..tasks.table import TASKS
from ..training.s4_window import LEAKY, s4_settings
from .call import Call
from .crossval import RunSpec, leak_of, plan_runs
from .experiment import DataKey, data_key
from .grids import RESERVED, cells_of, load_grid
from .loggers import usable

_OWN = re.compile(r"compare\.(txt|md|tex|csv|json|png|pdf|svg)|\..*")
_PRIMARY = "P"  # of every task, in every metrics.json
_ALL_PAIRS = 4  # cells; of more the table shows each against the first, and the JSON all pairs


def plan_cells(request: CompareRequest) -> dict[str, TrainConfig]:
    """{cell: its settings}: the options, for each preset those that it has, and over them the cell's own.

    Raises ValueError on a grid that is not one, and on a setting that is wrong, or that no cell has.
    """
    given = request.set_by_options()
    if "modalities" in given:
        raise ValueError("give features by --modalities")
    presets = [name.strip() for name in (request.presets or "").split(",") if name.strip()]
    if not presets and request.grid is None:
        raise ValueError("name what to compare: --presets, --grid or both")
    grid, source = ({}, "--presets") if request.grid is None else (load_grid(request.grid), f"--grid {request.grid}")
    cells = cells_of(grid, presets, request.modality_sets(), source)
    bases = {name: preset(name) for name in dict.fromkeys(cell.preset for cell in cells)}
    for key, text in given.items():
        having = [name for name, base in bases.items() if key in names_of(base)]
        if not having:
            with_settings(next(iter(bases.values())), {key: text})  # which says what there is
        if len(having) < len(bases):
            say(f"note: {key} is a setting of {', '.join(having)} alone")
    configs: dict[str, TrainConfig] = {}
    for cell in cells:
        own = dict(cell.settings) | ({"task": cell.task} if cell.task else {})
        if twice := sorted(set(own) & set(given)):
            raise ValueError(f"{cell.name}: {', '.join(twice)} is set by the grid and by an option")
        own |= {"modalities": ",".join(cell.modalities)} if cell.modalities else {}
        base = bases[cell.preset]
        shared = {key: text for key, text in given.items() if key in names_of(base)}
        try:
            configs[cell.name] = with_settings(base, {**shared, **own})
        except ValueError as error:
            raise ValueError(f"{cell.name}: {error}") from error
    if len(kinds := {TASKS[config.task].labels.name for config in configs.values()}) > 1:
        raise ValueError(f"the cells learn from different labels ({', '.join(sorted(kinds))}); compare them separately")
    return configs


def plan_comparison(
    request: CompareRequest, cells: Mapping[str, TrainConfig], folds: Sequence[int], seeds: Sequence[int]
) -> list[RunSpec]:
    """Every run, those that read the same features side by side. Raises ValueError where --out holds other files."""
    out = request.out
    if not any(out.glob("*/fold*/seed*/config.json")):
        strange = [path.name for path in out.glob("*") if not _OWN.fullmatch(path.name)]
        if others := sorted(set(strange) - set(cells) - set(RESERVED)):
            raise ValueError(f"{out} holds other files and is not a comparison ({preview(others)}); name another --out")
    runs: dict[DataKey, list[RunSpec]] = {}
    for name, config in cells.items():
        alike = runs.setdefault(data_key(config), [])
        if request.protocol is not None:  # first, so that the run that finishes last is an honest one
            leaky = f"{request.protocol}/{name}"
            alike += plan_runs(out / leaky, folds, seeds, s4_settings(config), leaky)
        alike += plan_runs(out / name, folds, seeds, config, name)
    return [run for alike in runs.values() for run in alike]


def write_comparison(
    call: Call,
    cells: Mapping[str, TrainConfig],
    whole: Sequence[RunSpec],
    done: Sequence[RunSpec],
    failed: Mapping[RunSpec, str],
) -> tuple[dict[str, Any], list[str]]:
    """Write table, chart and JSON over the runs that are `done` of the `whole`; returns the JSON and the table's lines.

    Files that say the same already are left alone; without a run that is done nothing is written.
    """
    out = call.request.out
    outcomes = {run: _outcome(run, out) for run in done}
    described = {run.folder: read_description(run.folder) for run in done}
    untrained = sorted({name for each in described.values() for name in each.features.untrained})
    rows: list[CellScores] = []
    states: dict[str, dict[tuple[int, int], dict[str, Any]]] = {}
    for name, config in cells.items():
        scorer = scorer_of(TASKS[config.task])
        honest = [run for run in done if run.cell == name]
        leaky = [outcomes[run] for run in done if run.cell.endswith(f"/{name}")]
        planned = sum(run.cell == name for run in whole)
        rows.append(sum_up_cell(name, [outcomes[run] for run in honest], planned, _PRIMARY, leaky))
        states[name] = {(run.fold, run.config.seed): _kept(call, run, scorer) for run in honest}
    differences = _differences(cells, states)
    warnings = _warnings(rows, states, differences, untrained)
    if leak := leak_of(described):
        warnings.insert(0, f"LEAK: {leak}")
    seeds, folds = (counted(len(set(each)), noun) for each, noun in ((call.seeds, "seed"), (call.folds, "fold")))
    title = f"{counted(len(cells), 'cell')} on {folds} and {seeds}, scored on validation trials: mean ± sd over seeds"
    content: dict[str, Any] = {
        "cells": [{**asdict(row), **_settings_of(cells[row.cell])} for row in rows],
        "runs": [_as_json(run, outcomes[run]) for run in done],
        "differences": [{"one": each.one, "other": each.other, **asdict(each.paired)} for each in differences],
        "bootstrap": {"draws": scorer.draws, "seed": 0, "level": LEVEL},
        "failed": {os.path.relpath(run.folder, out): why for run, why in failed.items()},
        "warnings": warnings,
    }
    about = made(
        store=sorted({each.features.store for each in described.values()}),
        annotations=sorted({each.annotations for each in described.values()}),
        UNTRAINED=untrained,
    )
    if not done:
        return {**content, "made": about}, []
    tasks = [TASKS[config.task] for config in cells.values()]
    titles = {score.key: task.title_of(score) for task in tasks if task.has_mean for score in task.tabled}
    shown = [each for each in differences if len(cells) <= _ALL_PAIRS or next(iter(cells)) in (each.one, each.other)]
    tables = [comparison_cells(rows, _PRIMARY, titles), *([difference_cells(shown, _PRIMARY)] if shown else [])]
    lines = [title, *(line for table in tables for line in (*text_table(table), ""))][:-1]
    files = {
        "compare.txt": "\n".join([*lines, *warnings, ""]),
        "compare.md": "\n\n".join([title, *map(markdown_table, tables), *(f"{line}\n" for line in warnings)]),
        "compare.tex": "\n".join(
            [latex_table(tables[0], [title, *warnings]), *(latex_table(each, []) for each in tables[1:])]
        ),
        "compare.csv": comparison_csv(rows),
    }
    draws = call.request.plots and usable("matplotlib.backends.backend_agg", "pictures")
    chart = f"compare.{call.request.figures}"
    if not _says_the_same(out, content, files) or (draws and not (out / chart).is_file()):
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            replace_file(out / name, text.encode())
        if draws:
            of_runs = {
                row.cell: [outcomes[run].scores[_PRIMARY] for run in done if run.cell == row.cell] for row in rows
            }
            comparison_plot(out / chart, rows, of_runs, differences, _PRIMARY, about)
        replace_file(out / "compare.json", (json.dumps({**content, "made": about}, indent=1) + "\n").encode())
    return {**content, "made": about}, [*lines, *warnings]


def _says_the_same(out: Path, content: Mapping[str, Any], files: Mapping[str, str]) -> bool:
    """Whether an earlier call has written just this, but for its time and its words."""
    try:
        before = {name: (out / name).read_text() for name in files}
        found = json.loads((out / "compare.json").read_bytes())
    except (OSError, ValueError):
        return False
    found.pop("made", None)
    return before == dict(files) and found == json.loads(json.dumps(content))


def _outcome(run: RunSpec, out: Path) -> RunOutcome:
    """What a finished run has left in its folder."""
    metrics, ended = read_metrics(run.folder), read_json(run.folder, FINISHED)
    with (run.folder / "history.csv").open(newline="") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    return RunOutcome(
        cell=run.cell,
        fold=run.fold,
        seed=run.config.seed,
        folder=Path(os.path.relpath(run.folder, out)),
        scores=scores_in(metrics),
        epoch=int(metrics["epoch"]),
        epochs=int(ended["epochs"]),
        seconds=float(np.median(seconds)),
        parameters=ended.get("parameters"),
    )


def _kept(call: Call, run: RunSpec, scorer: Scorer) -> dict[str, Any]:
    """{trial: what the scorer keeps of it} of a run's predictions; trials without a label have none."""
    checked = call.check(run.config, tuple(sorted(call.folds)))
    kept = {}
    for name in checked.folds[run.fold].validation:
        source = checked.trials[name]
        if source.labelled.any():
            names, prediction = read_prediction(trial_path(run.folder / "predictions", name, ".txt"))
            if (names, len(prediction)) != (run.config.outputs, source.rows):
                raise ValueError(f"{run.folder}: predictions of {name} are not those of its labels; remove the folder")
            kept[name] = scorer.of_trial(prediction, source.labels, source.labelled)
    return kept


def _differences(cells: Mapping[str, TrainConfig], states: Mapping[str, Runs]) -> list[Difference]:
    """Every pair of cells that learn the same task, the later one less the earlier one."""
    found = []
    for other, one in combinations(cells, 2):
        if cells[one].outputs == cells[other].outputs:
            paired = paired_differences(states[one], states[other], scorer_of(TASKS[cells[one].task]))
            found += [Difference(one, other, paired)] if paired is not None else []
    return found


def _warnings(
    rows: Sequence[CellScores], states: Mapping[str, Runs], differences: Sequence[Difference], untrained: Sequence[str]
) -> list[str]:
    """What stands below the tables."""
    line = untrained_line(untrained)
    lines = [line] if line else []
    if short := [row.cell for row in rows if row.runs < row.of]:
        lines.append(f"not all runs of {preview(short)} are done: their means are over other folds or seeds")
    sizes = {len(trials) for runs in states.values() for trials in runs.values()}
    if differences and sizes and min(sizes) < FEW_TRIALS:
        lines.append(f"folds of fewer than {FEW_TRIALS} trials: intervals over so few trials are too narrow")
    if any({*states[each.one]} != {*states[each.other]} for each in differences):
        lines.append("differences are over the runs that both cells have")
    names = {cell: {(key, trial) for key, of in runs.items() for trial in of} for cell, runs in states.items()}
    if any(names[each.one] != names[each.other] for each in differences):
        lines.append("differences are over the trials that both cells have")
    if any(row.leaky is not None for row in rows):
        lines.append(
            f"{LEAKY}: mean CCC of windows drawn from the training trials, which share 80 % of their frames with "
            "windows that were learned from: not comparable with any other number"
        )
    return lines


def _settings_of(config: TrainConfig) -> dict[str, Any]:
    """A cell's settings as compare.json has them; its runs differ in the seed."""
    settings = as_json(config)
    del settings["seed"], settings["protocol"]
    return {key: settings.pop(key) for key in ("preset", "task", "modalities")} | {"settings": settings}


def _as_json(run: RunSpec, outcome: RunOutcome) -> dict[str, Any]:
    settings = as_json(run.config)
    about = {key: settings.pop(key) for key in ("preset", "task", "modalities", "protocol")}
    settings.pop("seed")
    return {**asdict(outcome), "folder": str(outcome.folder), **about, "settings": settings}
