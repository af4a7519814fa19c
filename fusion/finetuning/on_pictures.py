"""A face network pre-trained on pictures: a linear layer on its rows, groups of layers released one after another.

    pictures ─ turned, mirrored, cut ─► backbone ─► rows ─ linear ─► cross-entropy, or 1 − CCC of valence and arousal
                                           └──────► iresnet50.safetensors of the best epoch

    OUT/ finetune.json  history.csv  metrics.json  training.pt  finished.json  iresnet50.safetensors or timm/NAME/

The backbone stays in eval mode, as for videos; of Su Zhang's network the linear layer to eight classes is its own
`logits`. A run that was killed goes on bit for bit from its last epoch.
Source: docs/sources.md (Fine-tuning).
Tested by tests/fusion/finetuning/test_on_pictures.py and tests/faults/test_finetune_kill.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ...batch.signals import StopRequest
from ...features_store.disk.atomic import remove_file, write_json
from ...features_store.schema import JsonValue
from ...shell.text import counted
from ..artifacts.folder import is_empty, read_json, remove_temporaries, run_lock
from ..artifacts.state import FINISHED, RUNNING, State, load_state, save_state, write_results
from ..config import PictureConfig, RunConfig
from ..data.runtime import autocast, deterministic, room_of
from ..tasks.ccc import ccc, ccc_loss
from ..tasks.f1 import class_f1, confusion
from ..training.learner import make_optimizer, seed_epoch, step_plateau, warm_up
from ..training.train import best_row
from .backbones import Backbone, write_weights
from .learner import begun_of, is_due, network_file
from .pictures import Pictures, batches, read_views, turned

SETTINGS = "finetune.json"
_SCRATCH = ".pictures"
_CUT = {48: 40}  # side of what is read → side that is cut out of it, where the network takes less
_HEAD = "head:"
Tell = Callable[[str], object]


class PictureLearner:
    """Backbone, linear layer and optimiser; `released` groups of the backbone learn, since epoch `begun`."""

    def __init__(self, backbone: Backbone, pictures: Pictures, config: PictureConfig, device: torch.device) -> None:
        seed_epoch(config.seed, 0)
        own = getattr(backbone.network, "logits", None)
        width = pictures.targets.shape[1]
        fits = isinstance(own, nn.Linear) and pictures.kind == "classes" and own.out_features == width
        self.head: nn.Linear = own if fits and own is not None else nn.Linear(backbone.dim, width).to(device)
        self.backbone, self.config, self.device, self.kind = backbone, config, device, pictures.kind
        self.most_released = min(config.releases, len(backbone.groups))
        self.released, self.begun = 0, 0
        self.optimizer: Optimizer
        self.plateau: ReduceLROnPlateau
        self.release(min(1, self.most_released), 0)

    def release(self, count: int, begun: int, best_p: float | None = None) -> None:
        """Let so many groups learn, from epoch `begun` on; optimiser and plateau rule are new.

        `best_p`: the best P until then, which the rule is to know.
        """
        config = self.config
        tuned = self.backbone.release(count)
        self.head.requires_grad_()
        parameters = list(self.head.parameters())
        groups: list[dict[str, Any]] = [{"params": parameters}]
        of_head = {id(each) for each in parameters}
        if tuned := [each for each in tuned if id(each) not in of_head]:
            groups.append({"params": tuned, "peak_lr": config.backbone_lr})
        self.optimizer, self.plateau = make_optimizer(config, groups, 0.0)
        if best_p is not None:
            self.plateau.best = best_p
        self.released, self.begun = count, begun

    def tensors(self) -> dict[str, Tensor]:
        """What learns, by name: the rest is as in the weights that it began from."""
        of_head = {f"{_HEAD}{name}": each for name, each in self.head.named_parameters()}
        same = {id(each) for each in of_head.values()}
        named = self.backbone.network.named_parameters()
        return {**of_head, **{name: each for name, each in named if each.requires_grad and id(each) not in same}}

    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights that learn."""
        return {name: each.detach().clone() for name, each in self.tensors().items()}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Go back to weights. Raises ValueError where they are not of what learns."""
        own = self.tensors()
        if own.keys() != weights.keys():
            raise ValueError("the saved training.pt is not of this network")
        with torch.no_grad():
            for name, each in own.items():
                each.copy_(weights[name])

    def outputs(self, views: Tensor, precision: Any) -> Tensor:
        """[N, C] of views uint8 [N, px, px, 3] on the device: of classes before the softmax."""
        with autocast(self.device, precision):
            found: Tensor = self.head(self.backbone.network(self.backbone.inputs(views)))
        return found.float()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy with (soft) classes; of valence and arousal the mean of 1 − CCC over the batch, or the MSE.

        `outputs`, `targets` [N, C].
        """
        if self.kind == "classes":
            return F.cross_entropy(outputs, targets)
        if self.config.va_loss == "mse":
            return F.mse_loss(outputs, targets)
        every = torch.ones(1, len(outputs), dtype=torch.bool, device=self.device)
        return ccc_loss(outputs[None], targets[None], every) / targets.shape[1]

    def rates(self) -> dict[str, float]:
        """Learning rates of the linear layer and of the backbone (0: frozen)."""
        own = [float(group["lr"]) for group in self.optimizer.param_groups]
        return {"lr": own[0], "backbone_lr": own[1] if len(own) > 1 else 0.0}


@deterministic()
def train_on_pictures(
    backbone: Backbone,
    pictures: Pictures,
    config: PictureConfig,
    run: RunConfig,
    folder: Path,
    tell: Tell,
    *,
    resume: bool = False,
    stop: StopRequest | None = None,
) -> dict[str, JsonValue]:
    """Tune a face network on pictures in a folder, on from its last epoch if there is one; the best epoch's scores.

    Raises ValueError if the folder holds another run, or one that is not to be resumed, if nothing is left of the
    pictures, or if the loss is not a number; OSError; Terminated.
    """
    if run.precision == "fp16":
        raise ValueError("pictures are learned from in fp32 or bf16")
    if backbone.input_px is None:
        raise ValueError(f"{backbone.feature} is fed with sound: pictures are for networks of faces")
    device = next(backbone.network.parameters()).device
    side_px = max(int(backbone.view.removeprefix("crop")), backbone.input_px)
    settings: dict[str, JsonValue] = {
        **asdict(config),
        "feature": backbone.feature,
        "view_px": side_px,
        "groups": [list(group.patterns) for group in backbone.groups],
        "base": dict(backbone.base),
        "pictures": pictures.sha256,
        "kind": pictures.kind,
        "classes": list(pictures.classes),
        "precision": run.precision,
    }
    with run_lock(folder) as mine:
        if not mine:
            raise ValueError(f"another process is training in {folder}")
        if (folder / SETTINGS).is_file():
            before = read_json(folder, SETTINGS)
            if other := sorted(key for key in settings if before.get(key) != settings[key] and key != "max_epochs"):
                raise ValueError(f"{folder} holds a run of other {', '.join(other)}; name another --out")
            if not resume:
                raise ValueError(f"{folder} holds this run already: --resume goes on with it")
        elif not is_empty(folder):
            raise ValueError(f"{folder} holds another run, or other files; name another --out")
        remove_temporaries(folder)
        write_json(folder / SETTINGS, settings)
        try:
            held = read_views(pictures, side_px, folder / _SCRATCH, room_of(run).host_bytes)
            for note in held.notes:
                tell(f"note: {note}")
            to_train = int((~held.held_out).sum())
            tell(
                f"{counted(to_train, 'picture')} to train on, {len(held.names) - to_train} to validate on, of "
                + (f"{len(held.classes)} classes" if held.classes else "valence and arousal")
            )
            learner = PictureLearner(backbone, held, config, device)
            return _epochs(learner, held, run, folder, tell, stop)
        finally:
            remove_file(folder / _SCRATCH)


def _epochs(
    learner: PictureLearner, pictures: Pictures, run: RunConfig, folder: Path, tell: Tell, stop: StopRequest | None
) -> dict[str, JsonValue]:
    """All epochs that are left, each saved at its end; the best one's line."""
    config = learner.config
    history: list[dict[str, Any]] = []
    best = learner.weights()
    if (saved := load_state(folder)) is not None:
        history, best = saved.history, saved.best
        learner.release(int(history[-1]["released"]), begun_of(history))
        learner.load(saved.model)
        learner.optimizer.load_state_dict(saved.optimizer)
        learner.plateau.load_state_dict(saved.plateau)
    while not (reason := _why_stop(learner, history)):
        began_s, epoch = time.monotonic(), len(history) + 1
        if history and _is_due(learner, history):
            learner.load(best)
            learner.release(learner.released + 1, len(history), float(best_row(history)["P"]))
            best = {**learner.weights(), **best}
        loss = _train_epoch(learner, pictures, run, epoch, stop)
        scored = _validate(learner, pictures, run)
        row = {"epoch": epoch, **learner.rates(), "released": learner.released, "loss": loss, **scored}
        history.append({**row, "seconds": round(time.monotonic() - began_s, 3)})
        if best_row(history) is history[-1]:
            best = learner.weights()
        else:
            learner.load(best)
        step_plateau(learner.plateau, scored["P"], warming_up=epoch - learner.begun <= config.warmup_epochs)
        plateau, optimizer = learner.plateau.state_dict(), learner.optimizer.state_dict()
        save_state(folder, State(history, learner.weights(), best, optimizer, plateau, {}))
        write_results(folder, history, best_row(history), lambda: _write_network(learner, pictures, folder, history))
        shown = " · ".join(f"{key} {value:.4f}" for key, value in scored.items() if key != "P")
        tell(f"epoch {epoch}: loss {loss:.4f} · {shown} · {counted(learner.released, 'group')} released")
    learner.load(best)
    write_results(folder, history, best_row(history), lambda: _write_network(learner, pictures, folder, history))
    write_json(folder / FINISHED, {"reason": reason, "epochs": len(history)})
    tell(f"{reason}: epoch {best_row(history)['epoch']} is the best, {network_file(folder, learner.backbone.feature)}")
    return {key: value for key, value in best_row(history).items() if key != "seconds"}


def _is_due(learner: PictureLearner, history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the learning rate is so low, for so long, that the next group is to be released."""
    return learner.released < learner.most_released and _is_over(learner, history)


def _is_over(learner: PictureLearner, history: Sequence[Mapping[str, Any]]) -> bool:
    config = learner.config
    return is_due(config, learner.rates()["lr"], len(history) - learner.begun, config.release_epochs)


def _why_stop(learner: PictureLearner, history: Sequence[Mapping[str, Any]]) -> str:
    """Why no further epoch is due; empty if one is."""
    config = learner.config
    if not history:
        return ""
    if len(history) >= config.max_epochs:
        return f"all {counted(len(history), 'epoch')} done"
    if _is_due(learner, history):
        return ""
    idle = len(history) - max(best_row(history)["epoch"], learner.begun)
    if idle >= config.early_stop:
        return f"no better score in {counted(idle, 'epoch')}"
    is_last = learner.released == learner.most_released and _is_over(learner, history)
    return f"the learning rate fell below {config.min_lr:g}, and no group is left" if is_last else ""


def _train_epoch(
    learner: PictureLearner, pictures: Pictures, run: RunConfig, epoch: int, stop: StopRequest | None
) -> float:
    """One epoch in an order of its own; the mean loss of a picture. Raises ValueError if it is not a number."""
    config, views = learner.config, pictures.views
    assert views is not None
    generator = seed_epoch(config.seed, epoch)
    to_train = np.flatnonzero(~pictures.held_out)
    order = to_train[torch.randperm(len(to_train), generator=generator).numpy()]
    parts = list(batches(order, config.batch_size))
    total = torch.zeros((), device=learner.device)
    for number, part in enumerate(parts):
        if stop is not None:
            stop.raise_if_set()
        warm_up(config, learner.optimizer, (epoch - 1 - learner.begun) * len(parts) + number, len(parts))
        seen, targets = _on_device(learner, pictures, part)
        cut_px = _CUT.get(seen.shape[1], seen.shape[1])
        loss = learner.loss(
            learner.outputs(turned(seen, generator, config.degrees, config.flip, cut_px), run.precision), targets
        )
        learner.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        learner.optimizer.step()
        total += loss.detach() * len(part)
    mean = float(total / len(order))
    if not math.isfinite(mean):
        raise ValueError(f"the loss of epoch {epoch} is {mean}: try a smaller lr; epoch {epoch - 1} is saved")
    return mean


def _validate(learner: PictureLearner, pictures: Pictures, run: RunConfig) -> dict[str, float]:
    """Scores on the pictures that are held out, as they are. `P`, which decides: accuracy, or the mean CCC."""
    held_out = np.flatnonzero(pictures.held_out)
    outputs: list[NDArray[np.float32]] = []
    with torch.no_grad():
        for part in batches(held_out, learner.config.batch_size):
            outputs.append(learner.outputs(_on_device(learner, pictures, part)[0], run.precision).cpu().numpy())
    found, truth = np.concatenate(outputs), pictures.targets[held_out]
    if pictures.kind == "va":
        each = {f"ccc_{name}": ccc(found[:, at], truth[:, at]) for at, name in enumerate(("valence", "arousal"))}
        return {"P": sum(each.values()) / 2, **each}
    cells = confusion(truth.argmax(1), found.argmax(1), len(pictures.classes))
    accuracy = float(np.trace(cells) / cells.sum())
    return {"P": accuracy, "accuracy": accuracy, "f1": float(class_f1(cells).mean())}


def _on_device(learner: PictureLearner, pictures: Pictures, part: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    assert pictures.views is not None
    views, targets = (torch.from_numpy(np.ascontiguousarray(each[part])) for each in (pictures.views, pictures.targets))
    return views.to(learner.device), targets.to(learner.device)


def _write_network(
    learner: PictureLearner, pictures: Pictures, folder: Path, history: Sequence[Mapping[str, Any]]
) -> None:
    """The weights of the best epoch, which the learner has now, as a file that `extract --weights` reads."""
    best = best_row(history)
    scores = {key: value for key, value in best.items() if key not in RUNNING}
    released: list[JsonValue] = [group.name for group in learner.backbone.groups[: best["released"]]]
    provenance: dict[str, JsonValue] = {
        **scores,
        "released": released,
        "pictures": {"count": int((~pictures.held_out).sum()), "sha256": pictures.sha256, "kind": pictures.kind},
        "classes": list(pictures.classes),
        "seed": learner.config.seed,
    }
    path = network_file(folder, learner.backbone.feature)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_weights(learner.backbone, path, provenance)
