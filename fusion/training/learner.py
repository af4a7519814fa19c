"""What learns: network, optimiser, learning rate, loss scale; one epoch of it; and how to go on from a saved state.

    lr  ┌────────────┐ ×0.1 after more than `patience` epochs without a better P
       ╱             └──────────┐
      ╱ warm-up, step by step   └──────

Source: docs/sources.md (Schedule); the warm-up reaches lr (the published code's stops at lr/5, a defect).
Tested by tests/fusion/training/test_learner.py and tests/fusion/training/test_train.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..artifacts.state import State, save_network
from ..config import PictureConfig, RunConfig, TrainConfig
from ..data.batches import Batch, Batches, drop_modalities
from ..data.dataset import Dataset
from ..data.runtime import autocast, find_compile_cache
from ..data.windows import Windows
from ..models.table import Output, build
from ..tasks.table import make_loss


class Watcher:
    """Is called with how a run goes; does nothing itself."""

    def step(self, epoch: int, step: int, steps: int, loss: Callable[[], float]) -> None:
        """After each batch; asking for the `loss` waits for the device."""

    def epoch(self, row: Mapping[str, Any], best: Mapping[str, Any]) -> None:
        """After each epoch: its line of the history, and the best one's."""

    def close(self) -> None:
        """At the end, however the run ended."""


@dataclass
class Learner:
    """A network in training; `network` is the same model, compiled if that was asked for.

    `loss`: of prediction [B, T, C], labels [B, T, L] and loss_mask bool [B, T], as `make_loss` gives it.
    `begun`: epochs that were done when its optimiser was made: 0, but where backbones are tuned beside it, which is
    what the methods from `see` on are for (finetuning/learner.py).
    """

    config: TrainConfig
    run: RunConfig
    device: torch.device
    model: nn.Module
    network: Callable[..., Tensor | Output]
    loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    optimizer: Optimizer
    plateau: ReduceLROnPlateau
    scaler: GradScaler
    begun: int = 0

    @property
    def lr(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self, batch: Batch) -> Tensor:
        """One step of the optimiser; returns the loss, a scalar that is still on the device."""
        seen, carry_on = self.see(batch)
        with autocast(self.device, self.run.precision):
            found = self.network(seen.features, seen.valid, seen.mask)
        prediction, extra_loss = found if isinstance(found, Output) else (found, 0.0)
        loss = self.loss(prediction, seen.labels, seen.loss_mask) + extra_loss
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        carry_on()
        if self.config.grad_clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.parameters(), self.config.grad_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()

    def step_scheduler(self, p: float, warming_up: bool) -> None:
        """As `step_plateau` does, for its own rule."""
        step_plateau(self.plateau, p, warming_up)

    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights that learn, and of the network's buffers."""
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Go back to weights. Raises RuntimeError if they are those of another network."""
        self.model.load_state_dict(weights)

    def see(self, batch: Batch) -> tuple[Batch, Callable[[], object]]:
        """What the head sees of a batch; to be called once its rows have gradients, which are carried on from there."""
        return batch, tuple

    def seen(self, data: Dataset, trials: Sequence[str]) -> Dataset:
        """What the head sees of these trials, in evaluation."""
        return data

    def parameters(self) -> list[nn.Parameter]:
        """All that learns now."""
        return list(self.model.parameters())

    def resume(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Be ready for the saved state of the last of these epochs."""

    def begin_epoch(self, history: Sequence[Mapping[str, Any]], best: dict[str, Tensor]) -> dict[str, Tensor]:
        """Before each epoch, with the best weights until then, which it returns."""
        return best

    def why_stop(self, history: Sequence[Mapping[str, Any]]) -> str:
        """Why no further epoch is due, for reasons of its own; empty if one may be."""
        return ""

    def columns(self) -> dict[str, float]:
        """What the history has of an epoch, beside loss and scores."""
        return {"lr": self.lr}

    def write_networks(self, folder: Path, best: Mapping[str, Tensor], row: Mapping[str, Any]) -> None:
        """Write the best network, of the weights `best` and the epoch `row`, into the run's folder. Raises OSError."""
        save_network(folder, best)


def init_learner(
    config: TrainConfig,
    run: RunConfig,
    shapes: Sequence[tuple[int, ...]],
    device: torch.device,
    labels: Sequence[NDArray[np.float32]] = (),
) -> Learner:
    """A new network, drawn from the run's seed, and its optimiser.

    `labels` [T, L] of each training trial: the loss weighs classes by them, if it does.
    """
    seed_epoch(config.seed, 0)
    if run.compile:
        find_compile_cache()
        torch.compiler.reset()  # after eight networks it would compile no more
    model = build(config, shapes).to(device)
    optimizer, plateau = make_optimizer(config, [{"params": list(model.parameters())}], config.min_lr)
    return Learner(
        config=config,
        run=run,
        device=device,
        model=model,
        network=torch.compile(model) if run.compile else model,
        loss=make_loss(config, labels),
        optimizer=optimizer,
        plateau=plateau,
        scaler=GradScaler(device.type, enabled=run.precision == "fp16"),
    )


def make_optimizer(
    config: TrainConfig | PictureConfig, groups: list[dict[str, Any]], min_lr: float
) -> tuple[Optimizer, ReduceLROnPlateau]:
    """Adam, or AdamW, for groups of parameters, and the plateau rule for all their learning rates.

    A group that does not learn at the run's `lr` says at which by `peak_lr`. `min_lr`: what the rule stops at.
    Source: docs/sources.md (Schedule).
    """
    kind = AdamW if isinstance(config, TrainConfig) and config.optimizer == "adamw" else Adam
    optimizer = kind(groups, lr=config.lr, weight_decay=config.weight_decay)
    for group in optimizer.param_groups:
        group["lr"] = group.get("peak_lr", config.lr)
    plateau = ReduceLROnPlateau(
        optimizer,
        mode="max",
        factor=config.plateau_factor,
        patience=config.plateau_patience,
        threshold=0.0,
        min_lr=min_lr,
        eps=0.0,
    )
    return optimizer, plateau


def step_plateau(plateau: ReduceLROnPlateau, p: float, warming_up: bool) -> None:
    """Pass validation P, `p`, on to a plateau rule; during the warm-up it only remembers the best."""
    if warming_up:
        plateau.best = max(plateau.best, p)
    else:
        plateau.step(p)


def warm_up(config: TrainConfig | PictureConfig, optimizer: Optimizer, step: int, steps_per_epoch: int) -> None:
    """Set the learning rates of `step` (from 0, since the optimiser was made) while the warm-up lasts."""
    steps = config.warmup_epochs * steps_per_epoch
    if step < steps:
        for group in optimizer.param_groups:
            group["lr"] = group.get("peak_lr", config.lr) * (step + 1) / steps


def train_epoch(
    learner: Learner, batches: Batches, windows: Windows, epoch: int, watchers: Iterable[Watcher] = ()
) -> float:
    """One epoch over all windows in an order of its own; returns the mean loss a window.

    Raises ValueError if the loss is not a number.
    """
    generator = seed_epoch(learner.config.seed, epoch)
    order = torch.randperm(len(windows), generator=generator)
    steps = -(-len(windows) // learner.config.batch_size)
    total = torch.zeros((), device=learner.device)
    learner.model.train()
    for step, batch in enumerate(batches.all(windows, order)):
        warm_up(learner.config, learner.optimizer, (epoch - 1 - learner.begun) * steps + step, steps)
        loss = learner.step(drop_modalities(batch, learner.config.modality_dropout, generator))
        total += loss * len(batch.mask)
        for watcher in watchers:
            watcher.step(epoch, step, steps, loss.item)
    mean = float(total / len(windows))
    if not math.isfinite(mean):
        fix = "try a smaller lr, grad_clip=1 or --precision fp32"
        raise ValueError(f"the loss of epoch {epoch} is {mean}: {fix}; epoch {epoch - 1} is saved")
    return mean


def restore(learner: Learner, state: State) -> None:
    """Go on from a saved state. Raises ValueError if it is that of another network."""
    try:
        learner.resume(state.history)
        learner.load(state.best)
        learner.load(state.model)
        learner.optimizer.load_state_dict(state.optimizer)
        learner.plateau.load_state_dict(state.plateau)
        learner.scaler.load_state_dict(state.scaler)
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"the saved training.pt is not of this network: {error}") from error


def seed_epoch(seed: int, epoch: int) -> torch.Generator:
    """Random numbers that depend on seed and epoch alone, so that a resumed run draws what an uninterrupted one does.

    Seeds torch's own generators (initial weights, dropout); returns one for the order and for modality dropout.
    """
    drawn = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))
    torch.manual_seed(drawn)
    return torch.Generator().manual_seed(drawn)
