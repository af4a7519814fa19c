"""The learning rate: a linear warm-up, then a plateau rule.

    lr  ┌────────────┐ ×0.1 after more than `patience` epochs without a better P
       ╱             └──────────┐
      ╱ warm-up, step by step   └──────

Source: docs/sources.md (Schedule); the warm-up reaches lr (the published code's stops at lr/5, a defect).
Tested by tests/fusion/training/test_schedule.py.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch.nn import Parameter
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..config import TrainConfig


def make_optimizer(config: TrainConfig, parameters: Iterable[Parameter]) -> Optimizer:
    """Adam or AdamW with the run's settings."""
    kind = AdamW if config.optimizer == "adamw" else Adam
    return kind(parameters, lr=config.lr, weight_decay=config.weight_decay)


def make_plateau(config: TrainConfig, optimizer: Optimizer) -> ReduceLROnPlateau:
    """The plateau rule on validation P; it is told of the epochs after the warm-up only."""
    return ReduceLROnPlateau(
        optimizer,
        mode="max",
        factor=config.plateau_factor,
        patience=config.plateau_patience,
        threshold=0.0,
        min_lr=config.min_lr,
        eps=0.0,
    )


def warm_up(config: TrainConfig, optimizer: Optimizer, step: int, steps_per_epoch: int) -> None:
    """Set the learning rate of `step` (from 0, over the whole run) while the warm-up lasts."""
    steps = config.warmup_epochs * steps_per_epoch
    if step < steps:
        for group in optimizer.param_groups:
            group["lr"] = config.lr * (step + 1) / steps
