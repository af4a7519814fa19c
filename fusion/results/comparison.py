"""Scores of several systems over the same folds and seeds, as one table: text, Markdown and CSV.

Whatever numbers the runs' metrics.json have are summed up; `primary` is the one that systems are compared by.
Text and Markdown show three decimals; CSV and JSON hold every bit. Tested by tests/fusion/results/test_comparison.py.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .bootstrap import Paired
from .tables import number

FEW_TRIALS = 10
_NOT_SCORES = ("epoch", "frames", "trials")
_KINDS = ("mean", "sd", "best")


@dataclass(frozen=True)
class RunOutcome:
    """One finished run: its scores, its best epoch, how many epochs it took and how long one took, s.

    `parameters`: numbers that it has learned; None if the run does not say.
    """

    cell: str
    fold: int
    seed: int
    folder: Path
    scores: Mapping[str, float]
    epoch: int
    epochs: int
    seconds: float
    parameters: int | None


@dataclass(frozen=True)
class CellScores:
    """One system: {score: number} of mean, sd and best over its `runs` of `of`; `leaky`: under S4's protocol."""

    cell: str
    runs: int
    of: int
    mean: Mapping[str, float]
    sd: Mapping[str, float | None]
    best: Mapping[str, float]
    parameters: int | None
    seconds: float | None
    leaky: float | None = None


@dataclass(frozen=True)
class Difference:
    """One cell less another, on the same trials."""

    one: str
    other: str
    paired: Paired


def scores_in(metrics: Mapping[str, object]) -> dict[str, float]:
    """The scores among the numbers of a metrics.json."""
    numbers = {name: value for name, value in metrics.items() if isinstance(value, (int, float))}
    return {name: float(value) for name, value in numbers.items() if name not in _NOT_SCORES}


def sum_up_cell(
    cell: str, runs: Sequence[RunOutcome], of: int, primary: str, leaky: Sequence[RunOutcome] = ()
) -> CellScores:
    """A cell's row. mean: over seeds, then over folds. sd: of the seeds' means over all folds, of the seeds that every
    fold has, ddof 1, None with one. best: of each fold its seed of largest `primary`, then the mean over the folds.
    """
    mean, sd, best = _over(runs, primary)
    seconds = [run.seconds for run in runs]
    return CellScores(
        cell=cell,
        runs=len(runs),
        of=of,
        mean=mean,
        sd=sd,
        best=best,
        parameters=next((run.parameters for run in runs), None),
        seconds=float(np.median(seconds)) if seconds else None,
        leaky=_over(leaky, primary)[0].get(primary),
    )


def _over(
    runs: Sequence[RunOutcome], primary: str
) -> tuple[dict[str, float], dict[str, float | None], dict[str, float]]:
    folds: dict[int, dict[int, RunOutcome]] = {}
    for run in runs:
        folds.setdefault(run.fold, {})[run.seed] = run
    if not folds:
        return {}, {}, {}
    common = sorted(set.intersection(*(set(seeds) for seeds in folds.values())))
    names = [name for name in runs[0].scores if all(name in run.scores for run in runs)]
    mean: dict[str, float] = {}
    sd: dict[str, float | None] = {}
    best: dict[str, float] = {}
    for name in names:
        mean[name] = float(np.mean([np.mean([run.scores[name] for run in fold.values()]) for fold in folds.values()]))
        of_seeds = [np.mean([fold[seed].scores[name] for fold in folds.values()]) for seed in common]
        sd[name] = float(np.std(of_seeds, ddof=1)) if len(of_seeds) > 1 else None
        chosen = [max(fold.values(), key=lambda run: (run.scores[primary], -run.seed)) for fold in folds.values()]
        best[name] = float(np.mean([run.scores[name] for run in chosen]))
    return mean, sd, best


def comparison_cells(rows: Sequence[CellScores], primary: str, titles: Mapping[str, str]) -> list[list[str]]:
    """Header and one row per cell: the primary score first, then the others that have `titles` and that a cell has."""
    known = {name for row in rows for name in row.mean}
    names = [primary, *(name for name in titles if name in known)]
    leaky = any(row.leaky is not None for row in rows)
    words = [primary, *(titles[name] for name in names[1:])]
    header = ["", f"{words[0]} ± sd", f"best {words[0]}", *words[1:], "parameters", "s an epoch", "runs"]
    cells = [[*header, *(["S4's windows (leaky)"] if leaky else [])]]
    for row in rows:
        sd = row.sd.get(primary)
        line = [row.cell, number(row.mean.get(primary)) + (" " * 7 if sd is None else f" ±{number(sd)}")]
        line += [number(row.best.get(primary)), *(number(row.mean.get(name)) for name in names[1:])]
        line += ["–" if row.parameters is None else f"{row.parameters:,}"]
        line += ["–" if row.seconds is None else f"{row.seconds:.3g}"]
        line += [str(row.runs) if row.runs == row.of else f"{row.runs} of {row.of}"]
        cells.append([*line, *([number(row.leaky)] if leaky else [])])
    return cells


def difference_cells(differences: Iterable[Difference], primary: str) -> list[list[str]]:
    """Header and a row a pair: the difference of the primary score, its interval, and what it rests on."""
    cells = [["", f"difference of {primary}", "95 % interval", "trials", "runs"]]
    for each in differences:
        found = each.paired.scores.get(primary)
        if found is not None:
            interval = f"[{found.low:+z.3f}, {found.high:+z.3f}]"
            row = [f"{each.one} − {each.other}", f"{found.difference:+z.3f}", interval]
            cells.append([*row, str(each.paired.trials), str(each.paired.runs)])
    return cells


def comparison_csv(rows: Sequence[CellScores]) -> str:
    """One line per cell; floats to the last bit, empty if there is none."""
    names = list(dict.fromkeys(name for row in rows for name in row.mean))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    scores = [f"{kind}_{name}" for kind in _KINDS for name in names]
    writer.writerow(["cell", "runs", "of", *scores, "parameters", "seconds_per_epoch", "s4_window_leaky"])
    for row in rows:
        values = [getattr(row, kind).get(name) for kind in _KINDS for name in names]
        writer.writerow([row.cell, row.runs, row.of, *values, row.parameters, row.seconds, row.leaky])
    return text.getvalue()
