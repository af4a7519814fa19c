"""A head in training whose rows come from backbones that learn too: what is released when, and how a step is taken.

    epochs      ├── warm-up ── lr ─ plateau: ×0.1 … below min_lr ─┤── warm-up ── lr ─ …
    learns      head, group 1 of each backbone                     head, groups 1 and 2 …

At a release the best state comes back, and optimiser, warm-up and plateau begin anew, with the best P so far. It ends
when the learning rate falls below `min_lr` and no group is left. Frozen layers and all batch norms stay as they are.
Source: docs/sources.md (Fine-tuning). Tested by tests/fusion/finetuning/test_release.py and
tests/faults/test_finetune_kill.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...encoders.table import feature
from ...encoders.weights.resolve import WeightSource
from ...encoders.weights.tuning import read_tuning
from ...features_store.disk.atomic import sha256_of
from ...features_store.records.leaks import learned_from
from ...features_store.schema import JsonValue
from ..artifacts.folder import Description
from ..artifacts.state import TIMM, save_network
from ..config import FinetuneConfig, PictureConfig, RunConfig, TrainConfig
from ..data.batches import Batch
from ..data.dataset import Dataset
from ..data.views import PatchTable, View, empty_rows, take_rows
from ..training.learner import Learner, init_learner, make_optimizer
from .backbones import Backbone, open_backbone, parse_groups, write_weights
from .rows import Augmentation, draw_augmentation, embed_trials
from .two_pass import TwoPass


@dataclass
class TunedLearner(Learner):
    """A head, and the `backbones` that make its rows of some modalities; `released` groups of each learn with it."""

    described: Description | None = None
    backbones: Mapping[str, Backbone] = field(default_factory=dict)
    released: int = 0

    @property
    def finetune(self) -> FinetuneConfig:
        """The settings of the backbones."""
        assert self.config.finetune is not None
        return self.config.finetune

    @property
    def most_released(self) -> int:
        """How many groups will have been released at the end."""
        return min(self.finetune.releases, max(len(each.groups) for each in self.backbones.values()))

    def release(self, count: int, begun: int, best_p: float | None = None) -> None:
        """Let `count` groups of each backbone learn from epoch `begun` on: optimiser and plateau rule are new.

        `best_p`: the best P until then, which the rule is to know.
        """
        tuned = [p for each in self.backbones.values() for p in each.release(min(count, len(each.groups)))]
        groups: list[dict[str, Any]] = [{"params": list(self.model.parameters())}]
        if tuned:
            groups.append({"params": tuned, "peak_lr": self.finetune.backbone_lr})
        # min_lr is what the learning rate falls below before the next release: no lower bound.
        self.optimizer, self.plateau = make_optimizer(self.config, groups, 0.0)
        if best_p is not None:
            self.plateau.best = best_p
        self.released, self.begun = count, begun

    def parameters(self) -> list[nn.Parameter]:
        """Those of the head, and of the backbones what is released."""
        return [*self.model.parameters(), *self._tensors().values()]

    def _tensors(self) -> dict[str, nn.Parameter]:
        """What is released, by `modality:name`, which no name of the head has in it."""
        return {
            f"{modality}:{name}": parameter
            for modality, backbone in self.backbones.items()
            for name, parameter in backbone.network.named_parameters()
            if parameter.requires_grad
        }

    def weights(self) -> dict[str, Tensor]:
        """A copy of the head's tensors, and of what is released; the rest is as in the weights that it began from."""
        return super().weights() | {name: value.detach().clone() for name, value in self._tensors().items()}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Go back to weights. Raises RuntimeError if they are those of other networks, or of another release."""
        tensors = self._tensors()
        if set(tensors) != {name for name in weights if ":" in name}:
            raise RuntimeError(f"{len(tensors)} released tensors of the backbones, and others in the saved state")
        super().load({name: value for name, value in weights.items() if ":" not in name})
        with torch.no_grad():
            for name, parameter in tensors.items():
                parameter.copy_(weights[name])

    def see(self, batch: Batch) -> tuple[Batch, Callable[[], object]]:
        """The batch with the backbones' rows, which have gradients, and the second pass for what these then are."""
        features, passes = list(batch.features), []
        for modality, backbone in self.backbones.items():
            at = self.config.modalities.index(modality)
            view, window_frames = batch.views[modality], batch.mask.shape[1]
            # Neither padding, nor windows that modality dropout takes it from.
            wanted = batch.features[at].flatten().nonzero().flatten()
            missing = wanted[~batch.valid[at].flatten()[wanted]]
            if len(missing):
                empty = missing[empty_rows(view, missing, self.run.micro_batch_rows)]
                wanted = wanted[~torch.isin(wanted, empty)]
            cut = None
            if isinstance(view, Tensor):
                drawn = draw_augmentation(backbone, view.shape[2], len(batch.mask), self.finetune)
                cut = drawn.to(self.device)

            def take(
                begin: int,
                end: int,
                view: Tensor | PatchTable = view,
                wanted: Tensor = wanted,
                cut: Augmentation | None = cut,
                window_frames: int = window_frames,
            ) -> Tensor:
                rows = wanted[begin:end]
                taken = take_rows(view, rows)
                return taken if cut is None else cut.cut(taken, rows // window_frames)

            own = min(self.released, len(backbone.groups))
            made = TwoPass(backbone, own, take, len(wanted), self.run.micro_batch_rows, self.run.precision, self.device)
            rows = made.rows().requires_grad_(bool(own))
            empty_batch = torch.zeros(batch.mask.numel(), backbone.dim, device=self.device)
            features[at] = empty_batch.index_copy(0, wanted, rows).view(*batch.mask.shape, backbone.dim)
            passes.append((made, rows))

        def carry_on() -> None:
            for made, rows in passes:
                if rows.grad is not None:
                    made.carry_on(rows.grad)

        return replace(batch, features=tuple(features), views={}), carry_on

    def seen(self, data: Dataset, trials: Sequence[str]) -> Dataset:
        """These trials with the rows that the backbones make now."""
        return embed_trials(data, self.backbones, trials, self.run.micro_batch_rows, self.run.precision)

    def resume(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Release what was released in the last of these epochs."""
        count = int(history[-1]["released"])
        self.release(count, begun_of(history))

    def begin_epoch(self, history: Sequence[Mapping[str, Any]], best: dict[str, Tensor]) -> dict[str, Tensor]:
        """Release the next groups if they are due, from the best weights until then; those, with what is released."""
        if not history or not self._is_due(history) or self.released >= self.most_released:
            return best
        self.load(best)
        self.release(self.released + 1, len(history), max(float(row["P"]) for row in history))
        return {**self.weights(), **best}

    def why_stop(self, history: Sequence[Mapping[str, Any]]) -> str:
        """The learning rate is below the last release's floor."""
        if not history or self.released < self.most_released or not self._is_due(history):
            return ""
        return f"the learning rate fell below {self.config.min_lr:g}, and no group is left to release"

    def _is_due(self, history: Sequence[Mapping[str, Any]]) -> bool:
        return is_due(self.config, self.lr, len(history) - self.begun, self.finetune.release_epochs)

    def columns(self) -> dict[str, float]:
        """Learning rates of the head and of the backbones (0: frozen), and how many groups are released."""
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        return {"lr": rates[0], "backbone_lr": rates[1] if len(rates) > 1 else 0.0, "released": self.released}

    def write_networks(self, folder: Path, best: Mapping[str, Tensor], row: Mapping[str, Any]) -> None:
        """The head as model.safetensors, and each backbone as a file that `extract --weights` reads. Raises OSError."""
        assert self.described is not None
        save_network(folder, {name: value for name, value in best.items() if ":" not in name})
        now = self.weights()
        self.load(best)
        fold, config = self.described.fold, self.config
        released = int(row["released"])
        provenance: dict[str, JsonValue] = {
            "fold": fold.number,
            "trials": list(fold.train),
            "validation": list(fold.validation),
            "task": config.task,
            "preset": config.preset,
            "modalities": list(config.modalities),
            "seed": config.seed,
            "epoch": row["epoch"],
            "P": row["P"],
        }
        for modality, backbone in self.backbones.items():
            names: list[JsonValue] = [group.name for group in backbone.groups[:released]]
            path = network_file(folder, modality)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_weights(backbone, path, {**provenance, "released": names})
        self.load(now)


def is_due(config: TrainConfig | PictureConfig, lr: float, epochs: int, release_epochs: int) -> bool:
    """Whether a release is over, `epochs` after it: the rate `lr` fell below the run's `min_lr`, and they are enough.

    Source: docs/sources.md (Fine-tuning).
    """
    # A little less, since four times ×0.1 is not 1e-4 to the last digit.
    return lr < config.min_lr * (1 - 1e-6) and epochs >= release_epochs


def begun_of(history: Sequence[Mapping[str, Any]]) -> int:
    """How many epochs were done when what is released in the last of these was released."""
    return next(at for at, row in enumerate(history) if row["released"] == history[-1]["released"])


def network_file(folder: Path, modality: str) -> Path:
    """Where a run keeps a tuned backbone: a file of the modality's name, of a network of timm a folder."""
    if modality.startswith(f"{TIMM}:"):
        return folder / TIMM / modality.partition(":")[2]
    return folder / f"{modality}.safetensors"


def leaks_of_base(folder: Path, config: TrainConfig, trials: Iterable[str]) -> dict[str, list[str]]:
    """{modality: those of these trials that the weights were tuned on from which a run's own networks began}.

    Raises ValueError, OSError where the files of these networks cannot be read.
    """
    found, names = {}, list(trials)
    for modality in config.views:
        base = (read_tuning(network_file(folder, modality)) or {}).get("base")
        if known := learned_from(base.get("tuning") if isinstance(base, dict) else None, names):
            found[modality] = known
    return found


def open_backbones(
    config: TrainConfig, sources: Mapping[str, WeightSource], device: torch.device
) -> dict[str, Backbone]:
    """The networks that are tuned, by modality, with the weights of `sources`. Raises WeightsInvalid, ValueError."""
    assert config.finetune is not None
    opened = {}
    for modality, network in config.finetune.networks.items():
        groups = config.finetune.groups[modality]
        opened[modality] = open_backbone(network, sources[modality], device, parse_groups(groups) if groups else None)
        if (view := opened[modality].view) != config.views[modality]:
            raise ValueError(
                f"{sources[modality].path or network} is fed {view}, and {network} {config.views[modality]}"
            )
    return opened


def open_tuned(folder: Path, config: TrainConfig, device: torch.device) -> dict[str, Backbone]:
    """The backbones of a run's best epoch. Raises ValueError, OSError if their files are missing or broken."""
    sources = {}
    for modality in config.views:
        path = network_file(folder, modality)
        if not path.exists():
            raise ValueError(f"{path} is missing: the run in {folder} has tuned {modality}, and cannot do without it")
        sources[modality] = WeightSource(modality, path.name, path, sha256_of(path) if path.is_file() else None, "")
    return open_backbones(config, sources, device)


def views_of(config: TrainConfig, sources: Mapping[str, WeightSource]) -> dict[str, View]:
    """What is read for each modality that a backbone makes, and how wide its rows will be."""
    dims: dict[str, int] = {}
    for modality in config.views:
        shape = feature(modality).row_shape
        if shape is None:
            dims[modality] = open_backbones(config, sources, torch.device("cpu"))[modality].dim
        else:
            (dims[modality],) = shape
    return {modality: View(stored, dims[modality]) for modality, stored in config.views.items()}


def init_tuned(
    config: TrainConfig,
    run: RunConfig,
    shapes: Sequence[tuple[int, ...]],
    device: torch.device,
    labels: Sequence[NDArray[np.float32]] = (),
    *,
    described: Description,
    backbones: Mapping[str, Backbone],
) -> TunedLearner:
    """A new head beside backbones with the weights that they begin from; the first group of each is released.

    `labels` [T, L] of each training trial, as `init_learner` has them.
    """
    plain = init_learner(config, run, shapes, device, labels)
    own = {each.name: getattr(plain, each.name) for each in fields(plain)}
    learner = TunedLearner(**own, described=described, backbones=backbones)
    learner.release(min(1, learner.most_released), 0)
    return learner
