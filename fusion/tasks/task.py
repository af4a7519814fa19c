"""What a task is: which labels it learns, what the network gives for a frame, its losses and its scores.

    labels [N, L] of a kind ──► targets [N, C] ◄── finish ◄── activation ◄── network [N, C] ──► loss
                                               └─► scores {key: number} ─► P

A real number is given as it is and clipped to its range, a class as probabilities that add up to 1, a flag as the
probability that it is 1: this follows from the labels' kind.
Source: docs/sources.md (Labels, F1): what a row of labels is. Tested by tests/fusion/tasks/test_tasks.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...features_store.labels.kinds import LabelKind

if TYPE_CHECKING:
    from torch import Tensor

Activation = Literal["none", "softmax", "sigmoid"]
Scores = Mapping[str, float | None]
# prediction [N, C], labels [N, L], valid bool [N] → {key of a score: its number, None for what is not learned}
Scorer = Callable[[NDArray[Any], NDArray[Any], NDArray[np.bool_]], dict[str, float | None]]


@dataclass(frozen=True)
class Score:
    """One score: its key in metrics.json, history.csv and TensorBoard, and its `title` at the head of a column.

    `short` is the title in the table of trials. A score without one is in no table: it is one of many, such as the F1
    of a class.
    """

    key: str
    title: str
    short: str = ""

    @property
    def column(self) -> str:
        """What the tables that have always been of CCCs call it: `valence`."""
        return self.key.removeprefix("ccc_")


@dataclass(frozen=True)
class Loss:
    """A loss: `function`(prediction [B, T, C], labels [B, T, L'], loss_mask bool [B, T], **settings) → a scalar.

    The labels are the task's `label_columns`; `settings` are those of `TrainConfig` that it is given by name. Where
    `weights` makes them from the labels [N, L] of the training side, it is given them as `weights`: None if the run has
    class_weights=false.
    """

    function: Callable[..., Tensor]
    settings: tuple[str, ...] = ()
    weights: Callable[[NDArray[Any]], list[float]] | None = None


@dataclass(frozen=True)
class Task:
    """What a run learns; an entry of the table.

    `columns` are the names of what the network gives for a frame, some or all of `labels.names`; `measure` is what the
    numbers of its tables are; P is the mean of the scores `primary`. The first of the `losses` is the default.
    """

    name: str
    labels: LabelKind
    columns: tuple[str, ...]
    measure: str
    scores: tuple[Score, ...]
    primary: tuple[str, ...]
    scorer: Scorer
    losses: Mapping[str, Loss] = field(hash=False)

    @property
    def activation(self) -> Activation:
        """What turns the network's numbers into predictions, before overlapping windows are averaged."""
        kinds: dict[str, Activation] = {"real": "none", "class": "softmax", "flags": "sigmoid"}
        return kinds[self.labels.values]

    @property
    def limits(self) -> tuple[float, float]:
        """The range of a prediction."""
        return (self.labels.lowest, self.labels.highest) if self.labels.values == "real" else (0.0, 1.0)

    @property
    def least_rows(self) -> int:
        """How many labelled rows a score, and a window in the loss, need: a CCC two."""
        return 2 if self.labels.values == "real" else 1

    @property
    def tabled(self) -> tuple[Score, ...]:
        """The scores that tables have a column for."""
        return tuple(score for score in self.scores if score.short)

    def title_of(self, score: Score) -> str:
        """A score's name beside those of other tasks: `CCC valence`, `F1 macro`, `accuracy`."""
        return score.title if score.title == score.short else f"{self.measure} {score.title}"

    @property
    def has_mean(self) -> bool:
        """Whether P is another number than the scores of the tables."""
        return len(self.primary) > 1

    @property
    def submission_header(self) -> str:
        """The first line of the challenge's file; empty if the task does not give all that it needs."""
        return f"image_location,{self.labels.header}" if set(self.columns) == set(self.labels.names) else ""

    def label_columns(self) -> list[int]:
        """Which numbers of a label row the task learns from."""
        if self.labels.values == "class":
            return [0]
        return [self.labels.names.index(name) for name in self.columns]

    def targets(self, labels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Labels [N, L] as perfect predictions [N, C]; a masked flag is NaN, a masked class has no 1."""
        if self.labels.values == "class":
            own: NDArray[np.bool_] = labels == np.arange(len(self.columns))
            return own.astype(np.float32)
        chosen = labels[:, self.label_columns()]
        if self.labels.values == "flags":
            chosen[chosen == self.labels.masked] = np.nan
        return chosen

    def finish(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Predictions [N, C], after they were averaged and smoothed, within their limits."""
        low, high = self.limits
        finished: NDArray[np.float32] = np.clip(rows, low, high)
        return finished

    def decide(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Predictions [N, C] as labels [N, L]: the likeliest class; the flags that are likelier 1 than 0; numbers."""
        if self.labels.values == "real":
            return rows
        decided: NDArray[np.int64] = rows.argmax(axis=1, keepdims=True)
        return decided if self.labels.values == "class" else (rows >= 0.5).astype(np.int64)

    def p(self, scores: Scores) -> float | None:
        """The score that chooses the best epoch: the mean of the primary ones that there are; None without any."""
        known = [score for key in self.primary if (score := scores.get(key)) is not None]
        return sum(known) / len(known) if known else None

    def of_columns(self, scores: Scores) -> dict[str, float]:
        """{column: its own score}, for the columns that have one."""
        own = {score.title: scores.get(score.key) for score in self.scores if score.title in self.columns}
        return {column: score for column, score in own.items() if score is not None}
