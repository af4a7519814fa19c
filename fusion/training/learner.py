"""What learns: network, optimiser, plateau rule, loss scale; one epoch of it; and its state to save and restore."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..artifacts.state import State
from ..config import RunConfig, TrainConfig
from ..data.batches import Batch, Batches, drop_modalities
from ..data.runtime import autocast, find_compile_cache
from ..data.windows import Windows
from ..models.table import build
from ..tasks.ccc import ccc_loss
from .schedule import make_optimizer, make_plateau, warm_up

OnStep = Callable[[int, int, Callable[[], float]], None]


@dataclass(frozen=True)
class Learner:
    """A network in training; `network` is the same model, compiled where that was asked for."""

    config: TrainConfig
    run: RunConfig
    device: torch.device
    model: nn.Module
    network: Callable[..., Tensor]
    optimizer: Optimizer
    plateau: ReduceLROnPlateau
    scaler: GradScaler

    @property
    def lr(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def loss(self, batch: Batch) -> Tensor:
        """Loss of one batch."""
        with autocast(self.device, self.run.precision):
            prediction = self.network(batch.features, batch.valid, batch.mask)
        return ccc_loss(prediction, batch.labels, batch.counted)

    def step(self, batch: Batch) -> Tensor:
        """One step of the optimiser; returns the loss, still on the device."""
        loss = self.loss(batch)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self.config.grad_clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()

    def step_scheduler(self, p: float, warming_up: bool) -> None:
        """Tell the plateau rule of validation P; during the warm-up it only remembers the best."""
        if warming_up:
            self.plateau.best = max(self.plateau.best, p)
        else:
            self.plateau.step(p)

    def weights(self) -> dict[str, Tensor]:
        """A copy of the network's tensors."""
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}


def init_learner(config: TrainConfig, run: RunConfig, widths: Sequence[int], device: torch.device) -> Learner:
    """A new network and its optimiser, drawn from the run's seed."""
    seed_epoch(config.seed, 0)
    if run.compile:
        find_compile_cache()
        torch.compiler.reset()  # after eight networks it would compile no more
    model = build(config.model, widths, len(config.outputs)).to(device)
    optimizer = make_optimizer(config, model.parameters())
    return Learner(
        config=config,
        run=run,
        device=device,
        model=model,
        network=torch.compile(model) if run.compile else model,
        optimizer=optimizer,
        plateau=make_plateau(config, optimizer),
        scaler=GradScaler(device.type, enabled=run.precision == "fp16"),
    )


def train_epoch(learner: Learner, batches: Batches, windows: Windows, epoch: int, told: OnStep) -> float:
    """One epoch over all windows in an order of its own; returns the mean loss a window.

    Raises ValueError where the loss is not a number.
    """
    generator = seed_epoch(learner.config.seed, epoch)
    order = torch.randperm(len(windows), generator=generator)
    steps = -(-len(windows) // learner.config.batch_size)
    total = torch.zeros((), device=learner.device)
    learner.model.train()
    for step, batch in enumerate(batches.all(windows, order)):
        warm_up(learner.config, learner.optimizer, (epoch - 1) * steps + step, steps)
        loss = learner.step(drop_modalities(batch, learner.config.modality_dropout, generator))
        total += loss * len(batch.mask)
        told(step, steps, loss.item)
    mean = float(total / len(windows))
    if not math.isfinite(mean):
        told_why = f"the loss of epoch {epoch} is {mean}: try a smaller lr, grad_clip=1 or --precision fp32"
        raise ValueError(f"{told_why}; epoch {epoch - 1} is saved")
    return mean


def state_of(learner: Learner, history: list[dict[str, object]], best: dict[str, Tensor]) -> State:
    """All that is needed to go on after the last epoch of `history`."""
    return State(
        history=history,
        model=learner.model.state_dict(),
        best=best,
        optimizer=learner.optimizer.state_dict(),
        plateau=learner.plateau.state_dict(),
        scaler=learner.scaler.state_dict(),
    )


def restore(learner: Learner, state: State) -> None:
    """Go on from a saved state. Raises ValueError where it is that of another network."""
    try:
        learner.model.load_state_dict(state.best)
        learner.model.load_state_dict(state.model)
        learner.optimizer.load_state_dict(state.optimizer)
        learner.plateau.load_state_dict(state.plateau)
        learner.scaler.load_state_dict(state.scaler)
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"the saved training.pt is not of this network: {error}") from error


def seed_epoch(seed: int, epoch: int) -> torch.Generator:
    """Draw from one place for each epoch, so that a resumed run draws what an uninterrupted one does.

    Sets torch's own generators (initial weights, dropout); returns one for orders and modality dropout.
    """
    drawn = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))
    torch.manual_seed(drawn)
    return torch.Generator().manual_seed(drawn)
