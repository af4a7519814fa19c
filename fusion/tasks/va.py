"""Real numbers by their CCC: valence and arousal, together and each alone; any other regression is made alike.

Source: docs/sources.md (CCC). Tested by tests/fusion/tasks/test_tasks.py and test_ccc.py.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...features_store.labels.kinds import VA, LabelKind
from .ccc import ccc, ccc_loss
from .task import Loss, Score, Task


def ccc_scores(
    names: tuple[str, ...],
    columns: tuple[str, ...],
    prediction: NDArray[Any],
    labels: NDArray[Any],
    valid: NDArray[np.bool_],
) -> dict[str, float | None]:
    """{`ccc_<name>`: CCC over the valid rows} of labels [N, L] called `names`; None for one that is not predicted.

    `prediction` [N, C] has the `columns`, some of the names in any order.
    """
    return {
        f"ccc_{name}": ccc(prediction[:, columns.index(name)], labels[:, at], valid) if name in columns else None
        for at, name in enumerate(names)
    }


def regression(name: str, labels: LabelKind, columns: tuple[str, ...]) -> Task:
    """A task that learns these columns of labels of real numbers by their CCC, and is scored by it.

    All names of the labels have their place in tables and files, those that are not learned without a number. Raises
    ValueError on labels that are not real numbers, or a column that they do not have.
    """
    if labels.values != "real" or not columns or set(columns) - set(labels.names):
        raise ValueError(f"a regression learns some of {', '.join(labels.names)}, real numbers, got {list(columns)}")
    return Task(
        name=name,
        labels=labels,
        columns=columns,
        measure="CCC",
        scores=tuple(Score(f"ccc_{each}", each, f"CCC {each[0].upper()}") for each in labels.names),
        primary=tuple(f"ccc_{each}" for each in labels.names),
        scorer=partial(ccc_scores, labels.names, columns),
        losses={"ccc": Loss(ccc_loss)},
    )


VA_TASK = regression("va", VA, VA.names)
VALENCE = regression("valence", VA, ("valence",))
AROUSAL = regression("arousal", VA, ("arousal",))
