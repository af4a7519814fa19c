"""The table of tasks: each is one file of this folder and one entry here. Loads no torch.

docs/adding-a-task.md adds one step by step. Sources of the losses: in each task's file.
Tested by tests/fusion/tasks/test_tasks.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .au import AU_TASK
from .expr import EXPR_TASK
from .task import Task
from .va import AROUSAL, VA_TASK, VALENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from ..config import TrainConfig

TASKS: dict[str, Task] = {
    "va": VA_TASK,
    "valence": VALENCE,
    "arousal": AROUSAL,
    "expr": EXPR_TASK,
    "au": AU_TASK,
}
# Settings of a run that only some losses have a use for.
LOSS_SETTINGS = ("focal_gamma", "label_smoothing", "class_weights", "label_smoothing_frames")


def used_settings(task: Task, loss: str) -> set[str]:
    """Which of LOSS_SETTINGS change something under this loss of a task."""
    chosen = task.losses[loss]
    used = {*chosen.settings, *(["class_weights"] if chosen.weights is not None else [])}
    return used | ({"label_smoothing_frames"} if task.labels.values == "real" else set())


def make_loss(config: TrainConfig, labels: Sequence[NDArray[np.float32]]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The loss of a run, as a function of prediction [B, T, C], labels [B, T, L] and loss_mask bool [B, T].

    `labels` [T, L] of each trial of the training side: class weights are made from them.
    """
    loss = TASKS[config.task].losses[config.loss_name]
    settings: dict[str, Any] = {name: getattr(config, name) for name in loss.settings}
    if loss.weights is not None:
        settings["weights"] = loss.weights(np.concatenate(labels)) if config.class_weights and len(labels) else None
    return partial(loss.function, **settings)


def joint_task(tasks: Iterable[Task]) -> Task:
    """The task that gives all that these give: of valence and arousal apart, both.

    Raises ValueError if they learn from different kinds of labels, or if no task gives just that.
    """
    given = {task.name: task for task in tasks}
    kinds = {task.labels for task in given.values()}
    if len(kinds) > 1:
        raise ValueError(f"the runs have learned different tasks ({', '.join(given)}); name runs of one of them")
    (kind,) = kinds
    together = {column for task in given.values() for column in task.columns}
    columns = tuple(name for name in kind.names if name in together)
    for task in (*given.values(), *TASKS.values()):
        if task.columns == columns and task.labels == kind:
            return task
    raise ValueError(f"no task has all of {', '.join(columns)}")
