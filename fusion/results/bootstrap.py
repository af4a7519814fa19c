"""Differences between two systems on the same trials, with bootstrap intervals: trials are drawn, not frames.

    a draw      trial  a  b  c  d           how often each trial is in it: the same for both systems
                       2  0  1  1    ──►    score of one − score of the other, over all frames of the drawn trials

Frames of a trial are alike, so an interval over frames would be far too narrow. What a CCC is made of adds up over
trials (count, sums, squares, products), as do the counts that an F1 is made of: ten thousand draws are one product of
matrices.
Source: Efron and Tibshirani 1993, chapter 13: percentile intervals; docs/sources.md (Intervals).
Tested by tests/fusion/results/test_bootstrap.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..tasks.f1 import f1
from ..tasks.task import Task

Column = NDArray[np.float64]
Scores = dict[str, Column]
# prediction [N, C], labels [N, L], valid bool [N] → {score: number}
ScoreFunction = Callable[[NDArray[Any], NDArray[Any], NDArray[np.bool_]], Mapping[str, float]]

DRAWS = 10_000
LEVEL = 0.95
_SMALLEST = 1e-13  # a variance below that is a constant's, with rounding noise
_MOMENTS = 6


class Scorer(Protocol):
    """A score that can be had again over trials drawn with repetition."""

    @property
    def draws(self) -> int:
        """How many draws an interval is made of."""

    def of_trial(self, prediction: NDArray[Any], labels: NDArray[Any], valid: NDArray[np.bool_]) -> Any:
        """What is kept of one trial: `prediction` [T, C], `labels` [T, L], `valid` bool [T]."""

    def over(self, trials: Sequence[Any], weights: Column) -> Scores:
        """{score: [B]} of B draws, in which each trial is as often as `weights` [B, trials] says."""


@dataclass(frozen=True)
class ConcordanceScorer:
    """CCC of each of these columns, and P, their mean: out of sums over frames.

    `places`: those of the columns among the labels.
    """

    columns: tuple[str, ...]
    places: tuple[int, ...] = (0, 1)
    draws: int = DRAWS

    def of_trial(self, prediction: NDArray[Any], labels: NDArray[Any], valid: NDArray[np.bool_]) -> Column:
        """[C, 6]: count, and the sums of x, y, x², y², x y over valid frames."""
        x, y = prediction[valid].astype(np.float64), labels[valid][:, list(self.places)].astype(np.float64)
        ones = np.ones_like(x)
        return np.stack([each.sum(0) for each in (ones, x, y, x * x, y * y, x * y)], 1)

    def over(self, trials: Sequence[Column], weights: Column) -> Scores:
        """As `fusion.tasks.ccc.ccc` has them; 0 where one is not defined."""
        sums = (weights @ np.stack(trials).reshape(len(trials), -1)).reshape(len(weights), -1, _MOMENTS)
        count, *others = np.moveaxis(sums, 2, 0)
        mean_x, mean_y, square_x, square_y, both = (each / np.maximum(count, 1) for each in others)
        spread = square_x - mean_x**2 + square_y - mean_y**2 + (mean_x - mean_y) ** 2
        defined = (spread > _SMALLEST) & (count >= 2)
        found = np.where(defined, 2 * (both - mean_x * mean_y), 0.0) / np.where(defined, spread, 1.0)
        of_columns = {f"ccc_{name}": found[:, column] for column, name in enumerate(self.columns)}
        return {"P": found.mean(axis=1), **of_columns}


@dataclass(frozen=True)
class CountScorer:
    """F1 of each class or flag of a task, and P, their mean: out of counts of frames."""

    task: Task
    draws: int = DRAWS

    def of_trial(self, prediction: NDArray[Any], labels: NDArray[Any], valid: NDArray[np.bool_]) -> Column:
        """[C, 3]: true positives, false positives and false negatives."""
        decided, true = self.task.decide(prediction[valid]), labels[valid]
        known = np.ones(true.shape, np.bool_)
        if self.task.labels.values == "class":
            numbers = np.arange(len(self.task.columns))
            decided, true = decided == numbers, true == numbers
        else:
            known = true >= 0
            decided, true = (decided == 1) & known, (true == 1) & known
        counts = (decided & true, decided & ~true & known, true & ~decided)
        return np.stack([each.sum(0) for each in counts], 1).astype(np.float64)

    def over(self, trials: Sequence[Column], weights: Column) -> Scores:
        """As `fusion.tasks.f1.f1` has them."""
        counts = (weights @ np.stack(trials).reshape(len(trials), -1)).reshape(len(weights), -1, 3)
        found = f1(*np.moveaxis(counts, 2, 0))
        own = {f"f1_{name.lower()}": found[:, at] for at, name in enumerate(self.task.columns)}
        return {"P": found.mean(axis=1), **own}


@dataclass(frozen=True)
class AnyScorer:
    """Scores of any kind: computed anew over the frames of each draw, and so with fewer draws."""

    scores: ScoreFunction
    draws: int = DRAWS // 10

    def of_trial(self, prediction: NDArray[Any], labels: NDArray[Any], valid: NDArray[np.bool_]) -> Any:
        """The trial itself: `prediction` [T, C], `labels` [T, L], `valid` bool [T]."""
        return prediction, labels, valid

    def over(self, trials: Sequence[Any], weights: Column) -> Scores:
        """One call of the function a draw."""
        found = []
        for row in weights.astype(int):
            drawn = [trial for trial, times in zip(trials, row, strict=True) for _ in range(times)]
            found.append(self.scores(*(np.concatenate(part) for part in zip(*drawn, strict=True))))
        return {name: np.array([each[name] for each in found], np.float64) for name in found[0]}


def scorer_of(task: Task) -> Scorer:
    """How predictions of a task are scored anew over drawn trials: by sums where its scores follow from such."""
    if task.labels.values == "real" and set(task.primary) >= {f"ccc_{name}" for name in task.columns}:
        return ConcordanceScorer(task.columns, tuple(task.label_columns()))
    if task.primary == ("f1_macro",):
        return CountScorer(task)

    def scores(prediction: NDArray[Any], labels: NDArray[Any], valid: NDArray[np.bool_]) -> dict[str, float]:
        found = task.scorer(prediction, labels, valid)
        return {"P": task.p(found) or 0.0, **{key: score for key, score in found.items() if score is not None}}

    return AnyScorer(scores)


@dataclass(frozen=True)
class Interval:
    """The `difference` of two scores, and the bounds `low` and `high` between which 95 % of the draws lie."""

    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """One system less another: {score: interval} over the `runs` that both have and the `trials` of their folds."""

    scores: Mapping[str, Interval]
    runs: int
    trials: int


Runs = Mapping[tuple[int, int], Mapping[str, Any]]


def paired_differences(one: Runs, other: Runs, scorer: Scorer, seed: int = 0) -> Paired | None:
    """Mean difference over folds and seeds that both systems have; None if there is none.

    `one`, `other`: {(fold, seed): {trial: what the scorer keeps of it}}. Each fold's trials are drawn by themselves,
    once for all its seeds and both systems, from `seed` and the fold's number. A fold's difference is the mean over
    its seeds, and the whole one the mean over the folds. The runs are taken as they are: what another seed would
    have given is not in the interval.
    """
    folds: dict[int, list[int]] = {}
    for fold, run_seed in sorted(set(one) & set(other)):
        folds.setdefault(fold, []).append(run_seed)
    drawn: dict[str, list[Column]] = {}
    trials = 0
    for fold, seeds in folds.items():
        names = sorted(set.intersection(*(set(of[fold, each]) for each in seeds for of in (one, other))))
        if not names:
            continue
        trials += len(names)
        generator = np.random.default_rng([seed, fold])
        chances = np.full(len(names), 1 / len(names))
        times = generator.multinomial(len(names), chances, size=scorer.draws).astype(np.float64)
        weights = np.concatenate([np.ones((1, len(names))), times])  # the first row is no draw: the trials themselves
        sums: Scores = {}
        for each in seeds:
            first, second = (scorer.over([of[fold, each][name] for name in names], weights) for of in (one, other))
            for score in first.keys() & second.keys():
                sums[score] = sums.get(score, 0.0) + (first[score] - second[score]) / len(seeds)
        for score, values in sums.items():
            drawn.setdefault(score, []).append(values)
    if not drawn:
        return None
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    intervals = {}
    for score, of_folds in drawn.items():
        difference, *draws = np.mean(of_folds, axis=0)
        intervals[score] = Interval(float(difference), *map(float, np.quantile(draws, tails)))
    return Paired(intervals, sum(map(len, folds.values())), trials)
