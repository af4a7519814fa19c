"""What predictions are worth: CCC over all valid frames of all trials, and trial by trial.

Source: docs/sources.md (CCC): the challenge's metric. Tested by tests/fusion/results/test_report.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...features_store.schema import JsonValue
from ...shell.text import counted, text_table
from ..config import COLUMNS
from ..data.matching import TrialSource
from ..tasks.ccc import ccc, p_score
from .tables import TrialScore, number, screen, trial_cells


@dataclass(frozen=True)
class Report:
    """CCC over all valid frames together, the mean of the trials' own, and each trial's."""

    rows: int
    valence: float | None
    arousal: float | None
    mean_trial_valence: float | None
    mean_trial_arousal: float | None
    trials: tuple[TrialScore, ...]

    @property
    def p(self) -> float:
        """The challenge's P; 0 without any CCC."""
        return p_score(self.valence, self.arousal) or 0.0

    @property
    def scored_trials(self) -> int:
        """Trials with a labelled frame; the others have no score."""
        return sum(trial.rows > 0 for trial in self.trials)

    def as_json(self) -> dict[str, JsonValue]:
        """The content of metrics.json."""
        return {
            "P": self.p,
            "ccc_valence": self.valence,
            "ccc_arousal": self.arousal,
            "mean_trial_ccc_valence": self.mean_trial_valence,
            "mean_trial_ccc_arousal": self.mean_trial_arousal,
            "frames": self.rows,
            "trials": self.scored_trials,
        }


def report(
    sources: Sequence[TrialSource], predictions: Mapping[str, NDArray[np.float32]], outputs: Sequence[str]
) -> Report:
    """Score predictions {trial: [T, C]}, whose columns are `outputs`, against the labels of `sources`."""
    valid = [source.labelled for source in sources]
    truth = np.concatenate([source.labels for source in sources])
    predicted = np.concatenate([predictions[source.name] for source in sources])
    whole = _scores(predicted, truth, np.concatenate(valid), outputs)
    trials = tuple(
        TrialScore(source.name, int(flags.sum()), **_scores(predictions[source.name], source.labels, flags, outputs))
        for source, flags in zip(sources, valid, strict=True)
    )
    known = [trial for trial in trials if trial.rows >= 2]
    return Report(
        rows=int(sum(flags.sum() for flags in valid)),
        mean_trial_valence=_mean([trial.valence for trial in known]),
        mean_trial_arousal=_mean([trial.arousal for trial in known]),
        trials=trials,
        **whole,
    )


def report_lines(scored: Report, max_trial_lines: int) -> list[str]:
    """A report as text: the numbers of the papers, and at most so many lines of the trials' table."""
    cells = [
        ["", "valence", "arousal", "P"],
        ["CCC, all frames", number(scored.valence), number(scored.arousal), number(scored.p)],
        [
            "CCC, mean of trials",
            number(scored.mean_trial_valence),
            number(scored.mean_trial_arousal),
            number(p_score(scored.mean_trial_valence, scored.mean_trial_arousal)),
        ],
    ]
    lines = [
        *text_table(cells),
        f"{counted(scored.rows, 'labelled frame')} of {counted(scored.scored_trials, 'trial')}",
    ]
    trials = screen(text_table(trial_cells(scored.trials)), max_trial_lines) if max_trial_lines else []
    return [*lines, *([""] if trials else []), *trials]


def _scores(
    predicted: NDArray[np.float32], truth: NDArray[np.float32], valid: NDArray[np.bool_], outputs: Sequence[str]
) -> dict[str, float | None]:
    return {
        name: ccc(predicted[:, list(outputs).index(name)], truth[:, column], valid) if name in outputs else None
        for column, name in enumerate(COLUMNS)
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
