"""Scores as tables: text of 80 columns, Markdown, CSV and JSON.

Text and Markdown show three decimals; CSV and JSON hold every bit. Tested by tests/fusion/test_tables.py.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np

OFFICIAL_FOLDS = 6
TASKS = ("valence", "arousal", "P")
_NONE = "–"
_NAME_WIDTH = 48
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
        """(CCC_V + CCC_A) / 2, or the one there is."""
        return float(np.mean([score for score in (self.valence, self.arousal) if score is not None]))


@dataclass(frozen=True)
class Row:
    """One line of a cross-validation: `best` is the run of largest P, `mean` and `sd` are over the seeds.

    All three are {valence, arousal, P}. `fold`, `seed` and `epoch` are None where the line is over all folds.
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
    """A line a fold, and one over all folds."""

    folds: tuple[Row, ...]
    mean: Row

    @property
    def title(self) -> str:
        """What the numbers are."""
        seeds = sorted({row.seeds for row in self.folds})
        if seeds == [1]:
            return "CCC on the validation set of each fold (one seed)"
        count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        return f"CCC on the validation set of each fold: best seed, and mean ± sd over {count} seeds"


def cross_validation(scores: Iterable[RunScore]) -> CrossValidation:
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
    folds = [tuple(group) for _, group in groupby(runs, key=lambda run: run.fold)]
    rows = tuple(_fold_row(fold) for fold in folds)
    common = set.intersection(*({run.seed for run in fold} for fold in folds))
    by_seed = [_means(_scores(run) for run in runs if run.seed == seed) for seed in sorted(common)]
    over = (_means(row.best for row in rows), _means(row.mean for row in rows), _sds(by_seed))
    return CrossValidation(rows, Row(None, len(common), None, None, *over))


def _fold_row(runs: Sequence[RunScore]) -> Row:
    best = max(runs, key=lambda run: run.p)
    each = [_scores(run) for run in runs]
    return Row(best.fold, len(runs), best.seed, best.epoch, _scores(best), _means(each), _sds(each))


def _scores(run: RunScore) -> Scores:
    return dict(zip(TASKS, (run.valence, run.arousal, run.p), strict=True))


def _present(each: Iterable[Scores]) -> dict[str, list[float]]:
    table = list(each)
    return {task: [score for scores in table if (score := scores[task]) is not None] for task in TASKS}


def _means(each: Iterable[Scores]) -> Scores:
    return {task: float(np.mean(found)) if found else None for task, found in _present(each).items()}


def _sds(each: Iterable[Scores]) -> Scores:
    return {task: float(np.std(found, ddof=1)) if len(found) > 1 else None for task, found in _present(each).items()}


def cross_validation_cells(result: CrossValidation) -> list[list[str]]:
    """Header and rows as the papers print them; with several seeds, mean ± sd beside the best."""
    several = any(row.seeds > 1 for row in result.folds)
    header = ["fold", "Valence", "Arousal", "Mean"]
    rows = [*result.folds, *([result.mean] if len(result.folds) > 1 else [])]
    cells = [[_label(row, result), *(number(row.best[task]) for task in TASKS)] for row in rows]
    if several:
        header += ["Valence ± sd", "Arousal ± sd", "Mean ± sd"]
        for line, row in zip(cells, rows, strict=True):
            line += [_spread(row.mean[task], row.sd[task]) for task in TASKS]
    return [header, *cells]


def _label(row: Row, result: CrossValidation) -> str:
    if row.fold is not None:
        return str(row.fold)
    return "mean" if len(result.folds) == OFFICIAL_FOLDS else f"mean of {len(result.folds)}"


def _spread(mean: float | None, sd: float | None) -> str:
    return number(mean) + (" " * len(" ±0.000") if sd is None else f" ±{number(sd)}")


def cross_validation_csv(result: CrossValidation) -> str:
    """One line a fold and one for the mean; floats to the last bit, empty where there is none."""
    kinds = ("best", "mean", "sd")
    header = ["fold", "seeds", "seed", "epoch", *(f"{kind}_{task}" for kind in kinds for task in TASKS)]
    rows: list[list[Any]] = [
        ["mean" if row.fold is None else row.fold, row.seeds, row.seed, row.epoch]
        + [getattr(row, kind)[task] for kind in kinds for task in TASKS]
        for row in (*result.folds, result.mean)
    ]
    return csv_table([header, *rows])


def cross_validation_json(result: CrossValidation) -> dict[str, Any]:
    """{"folds": [{fold, seeds, seed, epoch, best, mean, sd}, …], "mean": {…}}."""
    return {"folds": [asdict(row) for row in result.folds], "mean": asdict(result.mean)}


@dataclass(frozen=True)
class TrialScore:
    """CCC of one trial over its `rows` valid rows; None for a task that was not trained."""

    trial: str
    rows: int
    valence: float | None
    arousal: float | None


def trial_cells(scores: Iterable[TrialScore]) -> list[list[str]]:
    """Header and a row a trial, the worst mean first, those without a score last; long names lose their middle."""
    rows = [[_short(s.trial), str(s.rows), number(s.valence), number(s.arousal)] for s in sorted(scores, key=_rank)]
    return [["trial", "rows", "CCC V", "CCC A"], *rows]


def _rank(score: TrialScore) -> tuple[float, str]:
    found = [value for value in (score.valence, score.arousal) if value is not None]
    return (float(np.mean(found)) if found else np.inf), score.trial


def _short(name: str) -> str:
    half = (_NAME_WIDTH - 1) // 2
    return name if len(name) <= _NAME_WIDTH else f"{name[:half]}…{name[-half:]}"


def number(value: float | None) -> str:
    """Three decimals; a dash for none."""
    return _NONE if value is None else f"{value:z.3f}"


def text_table(cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right; `cells` [R][C], the header first."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (zip(row, widths, strict=True) for row in cells)
    return ["  ".join(_aligned(line)).rstrip() for line in lines]


def _aligned(line: Iterable[tuple[str, int]]) -> list[str]:
    return [cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(line)]


def markdown_table(cells: Sequence[Sequence[str]]) -> str:
    """The same as a Markdown table; a `|` in a cell is escaped."""
    rows = [[cell.strip().replace("|", "\\|") for cell in row] for row in cells]
    rule = ["---", *["---:"] * (len(cells[0]) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in [rows[0], rule, *rows[1:]])


def csv_table(rows: Iterable[Sequence[Any]]) -> str:
    """Comma-separated lines; floats to the last bit, None is empty."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def screen(lines: Sequence[str], max_lines: int, header_lines: int = 1) -> list[str]:
    """At most `max_lines` lines: the header, the first and last rows alike, and how many are left out between."""
    if len(lines) <= max_lines:
        return list(lines)
    kept = max(max_lines - header_lines - 1, 0)
    first = header_lines + (kept + 1) // 2
    last = len(lines) - kept // 2
    return [*lines[:first], f"… {last - first} of {len(lines) - header_lines} left out …", *lines[last:]]
