"""Action units: twelve flags a frame, each by itself, scored by the mean of their F1.

A label of one unit may be masked where those of the others are not: it is in neither the loss nor that unit's F1.
Source: docs/sources.md (F1, Labels). Tested by tests/fusion/tasks/test_tasks.py and test_f1.py.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...features_store.labels.kinds import AU, LabelKind
from .f1 import f1
from .task import Loss, Score, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

# A unit that is hardly ever there must not outweigh all others by its few frames.
MOST_WEIGHT = 100.0


def flag_scores(
    names: tuple[str, ...], prediction: NDArray[Any], labels: NDArray[Any], valid: NDArray[np.bool_]
) -> dict[str, float | None]:
    """Macro F1 and F1 of each flag over its known rows; all 0 without any.

    `prediction` [N, C] probabilities, 1 from 0.5 on; `labels` [N, C] 0 or 1, -1 where a flag is not known.
    """
    known = valid[:, None] & (labels >= 0)
    true, given = (labels == 1) & known, (prediction >= 0.5) & known
    counts = [cells.sum(axis=0).astype(np.float64) for cells in (true & given, given & ~true, true & ~given)]
    each = f1(*counts)
    own = {f"f1_{name.lower()}": float(value) for name, value in zip(names, each, strict=True)}
    return {"f1_macro": float(each.mean()), **own}


def positive_weights(labels: NDArray[Any]) -> list[float]:
    """Of each flag how many zeros there are to a one in labels [N, C], at most 100; 1 where it never changes."""
    ones, zeros = (labels == 1).sum(axis=0), (labels == 0).sum(axis=0)
    share = np.where((ones > 0) & (zeros > 0), zeros / np.maximum(ones, 1), 1.0)
    weights: list[float] = np.minimum(share, MOST_WEIGHT).tolist()
    return weights


def binary_cross_entropy(
    prediction: Tensor, labels: Tensor, mask: Tensor, *, weights: Sequence[float] | None = None
) -> Tensor:
    """Mean binary cross-entropy over the known flags of the frames that count; ones by their flag's weight.

    `prediction` [B, T, C] before the sigmoid, `labels` [B, T, C] 0, 1 or -1 (not known), `mask` bool [B, T]. What does
    not count changes neither the loss nor its gradient; without anything it is 0.
    """
    known = mask.unsqueeze(-1) & (labels >= 0)
    x = prediction.double().where(known, 0.0)
    # -log sigmoid(x) and -log(1 - sigmoid(x)), neither of which grows out of range.
    rest = (-x.abs()).exp().log1p()
    if_one, if_zero = rest + (-x).clamp(min=0), rest + x.clamp(min=0)
    if weights is not None:
        if_one = if_one * x.new_tensor(weights)
    losses = if_one.where(labels > 0, if_zero)
    return ((losses * known).sum() / known.sum().clamp(min=1)).float()


def detection(name: str, labels: LabelKind) -> Task:
    """A task that learns which of the labels' flags are 1. Raises ValueError on labels of another sort."""
    if labels.values != "flags":
        raise ValueError(f"a detection learns flags, and {labels.name} labels are not")
    return Task(
        name=name,
        labels=labels,
        columns=labels.names,
        measure="F1",
        scores=(Score("f1_macro", "macro", "F1"), *(Score(f"f1_{each.lower()}", each) for each in labels.names)),
        primary=("f1_macro",),
        scorer=partial(flag_scores, labels.names),
        losses={"bce": Loss(binary_cross_entropy, (), positive_weights)},
    )


AU_TASK = detection("au", AU)
