"""Scores of runs over folds and seeds, as the papers print them: best seed, and mean ± sd.

Text and Markdown show three decimals; CSV and JSON hold every bit. Tested by tests/fusion/results/test_tables.py.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np

from ...shell.text import untrained_line
from ..tasks.task import Task
from .tables import number

OFFICIAL_FOLDS = 6
Numbers = dict[str, float | None]


@dataclass(frozen=True)
class RunScore:
    """Scores of the best epoch of one run, by their keys in metrics.json; None for what was not trained.

    Raises ValueError where all are None.
    """

    fold: int
    seed: int
    scores: Mapping[str, float | None]
    epoch: int

    def __post_init__(self) -> None:
        if all(score is None for score in self.scores.values()):
            raise ValueError(
                f"fold {self.fold}, seed {self.seed}: a run has one of the scores {', '.join(self.scores)}"
            )


@dataclass(frozen=True)
class Row:
    """One line of a cross-validation: `best` is the run of largest P, `mean` and `sd` are over the seeds.

    All three are {valence, arousal, P}, or another task's scores and P. `fold`, `seed` and `epoch` are None in the line
    over all folds.
    """

    fold: int | None
    seeds: int
    seed: int | None
    epoch: int | None
    best: Numbers
    mean: Numbers
    sd: Numbers


@dataclass(frozen=True)
class CrossValidation:
    """One line per fold, and one over all folds; `untrained`: features of random networks that the runs learned from.

    `leak`: what is wrong with the scores, in words, where features come from weights tuned on validation trials.
    """

    task: Task
    folds: tuple[Row, ...]
    mean: Row
    untrained: tuple[str, ...] = ()
    leak: str = ""

    @property
    def warnings(self) -> list[str]:
        """What stands below the table."""
        leak = f"LEAK: {self.leak}" if self.leak else None
        return [line for line in (untrained_line(self.untrained), leak) if line]

    @property
    def title(self) -> str:
        """What the numbers are."""
        seeds = sorted({row.seeds for row in self.folds})
        if seeds == [1]:
            return f"{self.task.measure} on the validation set of each fold (one seed)"
        count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        return f"{self.task.measure} on the validation set of each fold: best seed, and mean ± sd over {count} seeds"


def cross_validation(
    scores: Iterable[RunScore], task: Task, untrained: Sequence[str] = (), leak: str = ""
) -> CrossValidation:
    """Sum up runs of a task by fold and over folds, as the papers do.

    Best: the seed of largest P of the fold (of two alike the lower number). sd: over the seeds, ddof 1, None with
    one seed. Over all folds: the mean of the folds' numbers; its sd is that of the seeds' means over all folds, of
    the seeds that every fold has. Raises ValueError without a run, or with two of one fold and seed.
    """
    runs = sorted(scores, key=lambda run: (run.fold, run.seed))
    keys = [(run.fold, run.seed) for run in runs]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice or not runs:
        raise ValueError(f"two runs of fold {twice[0][0]}, seed {twice[0][1]}" if twice else "no run to sum up")
    folds = [tuple(group) for _, group in groupby(runs, key=lambda run: run.fold)]
    names = [*(score.column for score in task.tabled), "P"]
    numbers: dict[tuple[int, int], Numbers] = {}
    for run in runs:
        own = {score.column: run.scores[score.key] for score in task.tabled}
        numbers[run.fold, run.seed] = {**own, "P": task.p(run.scores) or 0.0}
    rows = []
    for fold in folds:
        best = max(fold, key=lambda run: numbers[run.fold, run.seed]["P"] or 0.0)
        mean, sd = _mean_and_sd((numbers[run.fold, run.seed] for run in fold), names)
        rows.append(Row(best.fold, len(fold), best.seed, best.epoch, numbers[best.fold, best.seed], mean, sd))
    common = set.intersection(*({run.seed for run in fold} for fold in folds))
    seed_means = []
    for seed in sorted(common):
        seed_means.append(_mean_and_sd((numbers[run.fold, seed] for run in runs if run.seed == seed), names)[0])
    mean_best, _ = _mean_and_sd((row.best for row in rows), names)
    mean_mean, _ = _mean_and_sd((row.mean for row in rows), names)
    _, sd = _mean_and_sd(seed_means, names)
    over_all = Row(None, len(common), None, None, mean_best, mean_mean, sd)
    return CrossValidation(task, tuple(rows), over_all, tuple(untrained), leak)


def _mean_and_sd(scores: Iterable[Numbers], names: Sequence[str]) -> tuple[Numbers, Numbers]:
    """Of each score, over those that have it: the mean, and the sd (ddof 1) of two or more."""
    table = list(scores)
    present = {name: [score for row in table if (score := row[name]) is not None] for name in names}
    mean = {name: float(np.mean(found)) if found else None for name, found in present.items()}
    sd = {name: float(np.std(found, ddof=1)) if len(found) > 1 else None for name, found in present.items()}
    return mean, sd


def cross_validation_cells(result: CrossValidation) -> list[list[str]]:
    """Header and rows as the papers print them; with several seeds, mean ± sd beside the best."""
    several = any(row.seeds > 1 for row in result.folds)
    heads = {score.column: score.title[:1].upper() + score.title[1:] for score in result.task.tabled}
    heads |= {"P": "Mean"} if result.task.has_mean else {}
    over_all = "mean" if len(result.folds) == OFFICIAL_FOLDS else f"mean of {len(result.folds)}"
    cells = [["fold", *heads.values(), *([f"{head} ± sd" for head in heads.values()] if several else [])]]
    for row in (*result.folds, *([result.mean] if len(result.folds) > 1 else [])):
        line = [over_all if row.fold is None else str(row.fold), *(number(row.best[name]) for name in heads)]
        for name in heads if several else ():
            sd = row.sd.get(name)
            line.append(number(row.mean[name]) + (" " * len(" ±0.000") if sd is None else f" ±{number(sd)}"))
        cells.append(line)
    return cells


def cross_validation_csv(result: CrossValidation) -> str:
    """One line per fold and one for the mean; floats to the last bit, empty if there is none."""
    kinds, names = ("best", "mean", "sd"), [*(score.column for score in result.task.tabled), "P"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["fold", "seeds", "seed", "epoch", *(f"{kind}_{name}" for kind in kinds for name in names)])
    for row in (*result.folds, result.mean):
        scores = [getattr(row, kind).get(name) for kind in kinds for name in names]
        writer.writerow(["mean" if row.fold is None else row.fold, row.seeds, row.seed, row.epoch, *scores])
    return text.getvalue()


def cross_validation_json(result: CrossValidation) -> dict[str, Any]:
    """{"folds": [{fold, seeds, seed, epoch, best, mean, sd}, …], "mean": {…}}."""
    return {"folds": [asdict(row) for row in result.folds], "mean": asdict(result.mean)}
