"""Scores of runs over folds and seeds, as the papers print them: best seed, and mean ± sd.

Text and Markdown show three decimals; CSV and JSON hold every bit. Tested by tests/fusion/results/test_tables.py.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np

from ..tasks.ccc import p_score
from .tables import number

OFFICIAL_FOLDS = 6
TASKS = ("valence", "arousal", "P")
Scores = dict[str, float | None]


@dataclass(frozen=True)
class RunScore:
    """CCC of the best epoch of one run; None for a task that was not trained."""

    fold: int
    seed: int
    valence: float | None
    arousal: float | None
    epoch: int

    def __post_init__(self) -> None:
        if self.valence is None and self.arousal is None:
            raise ValueError(f"fold {self.fold}, seed {self.seed}: a run has a CCC of valence or arousal, or both")

    @property
    def p(self) -> float:
        """The challenge's P."""
        return p_score(self.valence, self.arousal) or 0.0


@dataclass(frozen=True)
class Row:
    """One line of a cross-validation: `best` is the run of largest P, `mean` and `sd` are over the seeds.

    All three are {valence, arousal, P}. `fold`, `seed` and `epoch` are None in the line over all folds.
    """

    fold: int | None
    seeds: int
    seed: int | None
    epoch: int | None
    best: Scores
    mean: Scores
    sd: Scores


@dataclass(frozen=True)
class CrossValidation:
    """A line a fold, and one over all folds; `untrained`: features of random networks that the runs learned from."""

    folds: tuple[Row, ...]
    mean: Row
    untrained: tuple[str, ...] = ()

    @property
    def warnings(self) -> list[str]:
        """What stands below the table."""
        names = ", ".join(self.untrained)
        return [f"UNTRAINED WEIGHTS: {names}: for tests and demos only"] if names else []

    @property
    def title(self) -> str:
        """What the numbers are."""
        seeds = sorted({row.seeds for row in self.folds})
        if seeds == [1]:
            return "CCC on the validation set of each fold (one seed)"
        count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        return f"CCC on the validation set of each fold: best seed, and mean ± sd over {count} seeds"


def cross_validation(scores: Iterable[RunScore], untrained: Sequence[str] = ()) -> CrossValidation:
    """Sum up runs by fold and over folds, as the papers do.

    Best: the seed of largest P of the fold (of two alike the lower number). sd: over the seeds, ddof 1, None with
    one seed. Over all folds: the mean of the folds' numbers; its sd is that of the seeds' means over all folds, of
    the seeds that every fold has. Raises ValueError without a run, or with two of one fold and seed.
    """
    runs = sorted(scores, key=lambda run: (run.fold, run.seed))
    keys = [(run.fold, run.seed) for run in runs]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice or not runs:
        raise ValueError(f"two runs of fold {twice[0][0]}, seed {twice[0][1]}" if twice else "no run to sum up")
    scores_of = {run: dict(zip(TASKS, (run.valence, run.arousal, run.p), strict=True)) for run in runs}
    folds = [tuple(group) for _, group in groupby(runs, key=lambda run: run.fold)]
    rows = []
    for fold in folds:
        best = max(fold, key=lambda run: run.p)
        mean, sd = _mean_and_sd(scores_of[run] for run in fold)
        rows.append(Row(best.fold, len(fold), best.seed, best.epoch, scores_of[best], mean, sd))
    common = set.intersection(*({run.seed for run in fold} for fold in folds))
    seed_means = [_mean_and_sd(scores_of[run] for run in runs if run.seed == seed)[0] for seed in sorted(common)]
    mean_best, _ = _mean_and_sd(row.best for row in rows)
    mean_mean, _ = _mean_and_sd(row.mean for row in rows)
    _, sd = _mean_and_sd(seed_means)
    over_all = Row(None, len(common), None, None, mean_best, mean_mean, sd)
    return CrossValidation(tuple(rows), over_all, tuple(untrained))


def _mean_and_sd(scores: Iterable[Scores]) -> tuple[Scores, Scores]:
    """Of each task, over those that have it: the mean, and the sd (ddof 1) of two or more."""
    table = list(scores)
    present = {task: [score for row in table if (score := row[task]) is not None] for task in TASKS}
    mean = {task: float(np.mean(found)) if found else None for task, found in present.items()}
    sd = {task: float(np.std(found, ddof=1)) if len(found) > 1 else None for task, found in present.items()}
    return mean, sd


def cross_validation_cells(result: CrossValidation) -> list[list[str]]:
    """Header and rows as the papers print them; with several seeds, mean ± sd beside the best."""
    several = any(row.seeds > 1 for row in result.folds)
    header = ["fold", "Valence", "Arousal", "Mean", *(["Valence ± sd", "Arousal ± sd", "Mean ± sd"] if several else [])]
    over_all = "mean" if len(result.folds) == OFFICIAL_FOLDS else f"mean of {len(result.folds)}"
    cells = [header]
    for row in (*result.folds, *([result.mean] if len(result.folds) > 1 else [])):
        line = [over_all if row.fold is None else str(row.fold), *(number(row.best[task]) for task in TASKS)]
        for task in TASKS if several else ():
            sd = row.sd[task]
            line.append(number(row.mean[task]) + (" " * len(" ±0.000") if sd is None else f" ±{number(sd)}"))
        cells.append(line)
    return cells


def cross_validation_csv(result: CrossValidation) -> str:
    """One line a fold and one for the mean; floats to the last bit, empty if there is none."""
    kinds = ("best", "mean", "sd")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["fold", "seeds", "seed", "epoch", *(f"{kind}_{task}" for kind in kinds for task in TASKS)])
    for row in (*result.folds, result.mean):
        scores = [getattr(row, kind)[task] for kind in kinds for task in TASKS]
        writer.writerow(["mean" if row.fold is None else row.fold, row.seeds, row.seed, row.epoch, *scores])
    return text.getvalue()


def cross_validation_json(result: CrossValidation) -> dict[str, Any]:
    """{"folds": [{fold, seeds, seed, epoch, best, mean, sd}, …], "mean": {…}}."""
    return {"folds": [asdict(row) for row in result.folds], "mean": asdict(result.mean)}
