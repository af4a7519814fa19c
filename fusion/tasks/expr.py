"""Expressions: one of eight classes a frame, scored by the macro F1 over all eight.

    Neutral · Anger · Disgust · Fear · Happiness · Sadness · Surprise · Other

Losses: soft F1 (S4), cross-entropy, and the focal loss of S4's code, both with smoothed labels if that is asked for.
Source: docs/sources.md (F1, Labels). Tested by tests/fusion/tasks/test_tasks.py and test_f1.py.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...features_store.labels.kinds import EXPR, LabelKind
from .f1 import class_f1, confusion, cross_entropy, soft_f1
from .task import Loss, Score, Task


def class_scores(
    names: tuple[str, ...], prediction: NDArray[Any], labels: NDArray[Any], valid: NDArray[np.bool_]
) -> dict[str, float | None]:
    """Macro F1, accuracy and F1 of each class over the valid rows; all 0 without any.

    `prediction` [N, C] probabilities, of which the largest counts, the first of equals; `labels` [N, 1] numbers of
    classes, whose `names` are given.
    """
    frames = confusion(labels[valid, 0], prediction[valid].argmax(axis=1), len(names))
    each = class_f1(frames)
    right = float(np.trace(frames) / max(frames.sum(), 1))
    own = {f"f1_{name.lower()}": float(value) for name, value in zip(names, each, strict=True)}
    return {"f1_macro": float(each.mean()), "accuracy": right, **own}


def classification(name: str, labels: LabelKind) -> Task:
    """A task that learns which of the labels' classes a frame is. Raises ValueError on labels of another sort."""
    if labels.values != "class":
        raise ValueError(f"a classification learns numbers of classes, and {labels.name} labels are not")
    own = tuple(Score(f"f1_{each.lower()}", each) for each in labels.names)
    return Task(
        name=name,
        labels=labels,
        columns=labels.names,
        measure="F1",
        scores=(Score("f1_macro", "macro", "F1"), Score("accuracy", "accuracy", "accuracy"), *own),
        primary=("f1_macro",),
        scorer=partial(class_scores, labels.names),
        losses={
            "soft-f1": Loss(soft_f1),
            "ce": Loss(cross_entropy, ("label_smoothing",)),
            "focal": Loss(cross_entropy, ("focal_gamma", "label_smoothing")),
        },
    )


EXPR_TASK = classification("expr", EXPR)
