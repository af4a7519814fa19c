"""Labels for trials that have none: where several runs agree, their mean; −5 elsewhere.

    run 1   0.30  0.52  0.10                        file   0.31
    run 2   0.32  0.20  0.12     agreement 0.05 ─►         -5       a row with -5 is masked
                                                           0.11

Files are in Aff-Wild2's layout (VA_Estimation_Challenge/Train_Set/<trial>.txt), for `train --extra-annotations`;
made.json says that they are pseudo-labels, and of what. Tested by tests/fusion/inference/test_pseudo_label.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...features_store.disk.atomic import replace_file
from ...features_store.labels.annotations import SETS
from ...features_store.labels.kinds import VA
from ...features_store.schema import plain_name
from ...shell.text import counted, preview
from ..results.prediction_files import DECIMALS, writable
from .ensemble import Predictions


@dataclass(frozen=True)
class PseudoLabels:
    """{trial: labels [T, 2], −5 where there is none}; `several`: trials left out, whose files would share a name."""

    trials: Mapping[str, NDArray[np.float64]]
    several: tuple[str, ...]

    @property
    def rows(self) -> int:
        """All rows."""
        return sum(map(len, self.trials.values()))

    @property
    def labelled(self) -> int:
        """Rows with both labels: the only ones that are trained on."""
        return sum(int((rows != VA.masked).all(axis=1).sum()) for rows in self.trials.values())

    def lines(self) -> list[str]:
        """What a user should know about them."""
        share = f"{self.labelled / max(self.rows, 1):.1%}"
        lines = [f"{counted(self.labelled, 'row')} of {self.rows} ({share}) of {counted(len(self.trials), 'trial')}"]
        if self.several:
            lines.append(f"note: left out, since labels cannot tell trials of one name apart: {preview(self.several)}")
        return lines

    def write(self, folder: Path) -> None:
        """One file per trial below the challenge's training set."""
        below = folder / VA.folder / SETS[0]
        below.mkdir(parents=True)
        for name, rows in self.trials.items():
            cells = (",".join("-5" if each == VA.masked else f"{each:.{DECIMALS}f}" for each in row) for row in rows)
            replace_file(below / f"{_file_name(name)}.txt", "\n".join([VA.header, *cells, ""]).encode())


def pseudo_labels(predictions: Predictions, agreement: float) -> PseudoLabels:
    """Labels where the predictions of all runs lie within `agreement` of each other, each column by itself.

    Rows without a feature that was computed from real media have none. Raises ValueError where valence or arousal is
    predicted by fewer than two runs, or no row is agreed upon.
    """
    if predictions.task.columns != VA.names:
        raise ValueError(f"labels need valence and arousal, the runs predict {', '.join(predictions.task.columns)}")
    alone = [
        name for at, name in enumerate(VA.names) if any(np.isnan(s[:, at]).any() for s in predictions.spread.values())
    ]
    if alone:
        raise ValueError(f"only one run predicts {' and '.join(alone)}, and agreement needs two; name more by --run")
    files = Counter(map(_file_name, predictions.trials))
    labels = {}
    for name, rows in predictions.trials.items():
        if files[_file_name(name)] == 1:
            agreed = (predictions.spread[name] <= agreement) & predictions.valid[name][:, None]
            labels[name] = np.where(agreed, writable(name, rows, len(VA.names)), VA.masked)
    found = PseudoLabels(labels, tuple(sorted(set(predictions.trials) - set(labels))))
    if not found.labelled:
        raise ValueError(f"the runs agree within {agreement:g} on valence and arousal in no row of {found.rows}")
    return found


def _file_name(trial: str) -> str:
    """What the labels of a trial of a store are called: the last part of its name."""
    return plain_name(trial).rpartition("/")[2]
