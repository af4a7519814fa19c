"""What predictions are worth: the task's scores over all valid frames of all trials, and trial by trial.

Source: docs/sources.md (CCC, F1): the challenge's metrics. Tested by tests/fusion/results/test_report.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...features_store.schema import JsonValue
from ...shell.text import counted, text_table
from ..data.matching import TrialSource
from ..tasks.task import Scores, Task
from .tables import TrialScore, number, screen, trial_cells


@dataclass(frozen=True)
class Report:
    """Scores over all valid frames together, the mean of the trials' own, and each trial's, by their keys.

    Of trials only the scores that tables have are known. None: not learned, or no trial to take the mean of.
    """

    task: Task
    rows: int
    scores: Scores
    mean_trial: Scores
    trials: tuple[TrialScore, ...]

    @property
    def p(self) -> float:
        """The challenge's P; 0 without any score."""
        return self.task.p(self.scores) or 0.0

    @property
    def scored_trials(self) -> int:
        """Trials with a labelled frame; the others have no score."""
        return sum(trial.rows > 0 for trial in self.trials)

    def as_json(self) -> dict[str, JsonValue]:
        """The content of metrics.json."""
        means = {f"mean_trial_{key}": value for key, value in self.mean_trial.items()}
        return {"P": self.p, **self.scores, **means, "frames": self.rows, "trials": self.scored_trials}

    def by_trial(self) -> list[dict[str, Any]]:
        """The name, the rows and the scores of each trial."""
        columns = {score.key: score.column for score in self.task.tabled}
        return [
            {"trial": each.trial, "rows": each.rows, **{columns[key]: value for key, value in each.scores.items()}}
            for each in self.trials
        ]


def report(sources: Sequence[TrialSource], predictions: Mapping[str, NDArray[np.float32]], task: Task) -> Report:
    """Score predictions {trial: [T, C]} of a task against the labels of `sources`."""
    valid = [source.labelled for source in sources]
    truth = np.concatenate([source.labels for source in sources])
    predicted = np.concatenate([predictions[source.name] for source in sources])
    tabled = [score.key for score in task.tabled]
    trials = []
    for source, flags in zip(sources, valid, strict=True):
        found = task.scorer(predictions[source.name], source.labels, flags)
        trials.append(TrialScore(source.name, int(flags.sum()), {key: found[key] for key in tabled}))
    known = [trial for trial in trials if trial.rows >= task.least_rows]
    mean_trial: dict[str, float | None] = {}
    for key in tabled:
        values = [value for trial in known if (value := trial.scores[key]) is not None]
        mean_trial[key] = sum(values) / len(values) if values else None
    return Report(
        task=task,
        rows=int(sum(flags.sum() for flags in valid)),
        scores=task.scorer(predicted, truth, np.concatenate(valid)),
        mean_trial=mean_trial,
        trials=tuple(trials),
    )


def report_lines(scored: Report, max_trial_lines: int) -> list[str]:
    """A report as text: the numbers of the papers, and at most so many lines of the trials' table."""
    task = scored.task
    cells = [["", *(score.title for score in task.tabled), *(["P"] if task.has_mean else [])]]
    for what, scores in (("all frames", scored.scores), ("mean of trials", scored.mean_trial)):
        numbers = [number(scores[score.key]) for score in task.tabled]
        p = (task.p(scores) or 0.0) if what == "all frames" else task.p(scores)
        cells.append([f"{task.measure}, {what}", *numbers, *([number(p)] if task.has_mean else [])])
    lines = [
        *text_table(cells),
        f"{counted(scored.rows, 'labelled frame')} of {counted(scored.scored_trials, 'trial')}",
    ]
    if own := [f"{score.title} {number(scored.scores[score.key])}" for score in task.scores if not score.short]:
        lines.append(f"{task.measure} of {', '.join(own)}")
    trials = screen(text_table(trial_cells(scored.trials, task)), max_trial_lines) if max_trial_lines else []
    return [*lines, *([""] if trials else []), *trials]
