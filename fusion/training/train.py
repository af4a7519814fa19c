"""One run from top to bottom: one fold, one seed, from the first epoch or from where it stopped.

Tested by tests/fusion/training/test_train.py, tests/fusion/training/test_planted.py and
tests/faults/test_train_kill.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...shell.text import counted
from ..artifacts import state
from ..artifacts.folder import Description
from ..config import RunConfig, TrainConfig
from ..data.batches import Batches
from ..data.dataset import Dataset
from ..data.runtime import deterministic
from ..results.report import Report, report
from ..tasks.table import TASKS
from .learner import Learner, Watcher, init_learner, restore, train_epoch
from .s4_window import draw_windows, score_windows
from .stitch import by_trial, predict

History = list[dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the best epoch's report and predictions {trial: [T, C]}, all epochs' history, and why.

    `parameters`: numbers of the network that are learned. Windows of S4's protocol leave no predictions of trials.
    """

    report: Report
    predictions: Mapping[str, NDArray[np.float32]]
    history: Sequence[Mapping[str, Any]]
    reason: str
    parameters: int


@deterministic()
def train(
    described: Description,
    data: Dataset,
    run: RunConfig,
    folder: Path,
    watchers: Sequence[Watcher] = (),
    init: Callable[..., Learner] = init_learner,
) -> Outcome:
    """Train one run in its folder, on from its last saved epoch if there is one; `init` makes what learns.

    Raises ValueError if the loss is not a number, or a side of the fold has too few labelled frames; OSError if the
    state cannot be saved. The last saved epoch is safe in any case.
    """
    config, fold = described.config, described.fold
    task = TASKS[config.task]
    batches = Batches(data, described.statistics, config)
    windows = batches.to_train_on(data.windows(fold.train, config), f"training side of fold {fold.number}")
    # Every labelled row is scored, whatever its features are.
    if (labelled := sum(int(data.sources[name].labelled.sum()) for name in fold.validation)) < task.least_rows:
        side = f"the validation side of fold {fold.number}"
        if labelled:
            raise ValueError(f"{side} has one labelled frame, and a CCC needs two")
        raise ValueError(f"{side} has no labelled frame: all its label rows are masked ({task.labels.masked:g})")
    if config.protocol == "s4-window":
        windows, drawn = draw_windows(windows, config.seed)
    truth = [data.sources[name].labels for name in fold.train]
    learner = init(config, run, data.shapes, data.labels.device, truth)
    history: History = []
    best = learner.weights()
    if (saved := state.load_state(folder)) is not None:
        restore(learner, saved)
        history, best = saved.history, saved.best

    def validate() -> tuple[Report, dict[str, NDArray[np.float32]]]:
        if config.protocol == "s4-window":
            return score_windows(learner.model, data, batches, drawn, task, run.precision), {}
        seen = learner.seen(data, fold.validation)
        of_seen = batches if seen is data else Batches(seen, described.statistics, config)
        held_out = seen.windows(fold.validation, config)
        rows = predict(learner.model, seen, of_seen, held_out, task, run.precision)
        predictions = by_trial(seen, fold.validation, rows)
        return report([data.sources[name] for name in fold.validation], predictions, task), predictions

    def write_results() -> None:
        row = best_row(history)
        state.write_results(folder, history, row, lambda: learner.write_networks(folder, best, row))

    while not (reason := why_stop(config, history) or learner.why_stop(history)):
        began_s, epoch = time.monotonic(), len(history) + 1
        best = learner.begin_epoch(history, best)
        loss = train_epoch(learner, batches, windows, epoch, watchers)
        scored, _ = validate()
        row = {"epoch": epoch, **learner.columns(), "loss": loss, **scored.as_json()}
        history.append({**row, "seconds": round(time.monotonic() - began_s, 3)})
        if best_row(history) is history[-1]:
            best = learner.weights()
        elif config.restore_best:
            learner.load(best)
        learner.step_scheduler(scored.p, warming_up=epoch - learner.begun <= config.warmup_epochs)
        reached = state.State(
            history=history,
            model=learner.weights(),
            best=best,
            optimizer=learner.optimizer.state_dict(),
            plateau=learner.plateau.state_dict(),
            scaler=learner.scaler.state_dict(),
        )
        state.save_state(folder, reached)
        write_results()
        for watcher in watchers:
            watcher.epoch(history[-1], best_row(history))

    learner.load(best)
    scored, predictions = validate()
    write_results()
    parameters = sum(each.numel() for each in learner.parameters() if each.requires_grad)
    return Outcome(scored, predictions, history, reason, parameters)


def why_stop(config: TrainConfig, history: History) -> str:
    """Why no further epoch is due; empty if one is."""
    if not history:
        return ""
    # A release begins a new count.
    began = next((row["epoch"] - 1 for row in history if row.get("released") == history[-1].get("released")), 0)
    idle = len(history) - max(best_row(history)["epoch"], began)
    if idle >= config.early_stop:
        return f"no better P in {counted(idle, 'epoch')}"
    return f"all {counted(len(history), 'epoch')} done" if len(history) >= config.max_epochs else ""


def best_row(history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The epoch with the largest validation P, the first of equals."""
    return max(history, key=lambda row: float(row["P"]))
