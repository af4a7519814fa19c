"""What the commands that train or use networks are asked to do: one frozen request each, and the settings it asks for.

Tested by tests/fusion/test_commands.py, test_defaults.py and tests/fusion/inference/test_evaluate.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..encoders.contract import Precision
from .config import (
    UNTRAINED,
    Figures,
    FinetuneConfig,
    PictureConfig,
    RunConfig,
    TrainConfig,
)
from .folds.subjects import GroupChoice
from .settings import picture_settings, preset, with_settings

if TYPE_CHECKING:
    from ..encoders.weights.resolve import WeightSource

_MOST_GB = 1e9  # for `inf` and the like: no bound
FINETUNE_EARLY_STOP = 50  # S3's code: more than the 24 epochs after which the plateau rule releases a group


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """Options of all commands that run a network, by their names; None if the help gives the default."""

    store: str | None
    out: Path | None
    annotations: Path | None = None
    device: str
    precision: Precision
    memory_gb: float | None
    compiled: bool = False
    allow_other_features: bool
    allow_length_difference: bool
    as_json: bool

    def run_config(self) -> RunConfig:
        """How to run."""
        memory_gb = None if self.memory_gb is None else min(self.memory_gb, _MOST_GB)
        return RunConfig(self.device, self.precision, self.compiled, memory_gb)


@dataclass(frozen=True, kw_only=True)
class RunsRequest(RunRequest):
    """What `avfuse train` and `compare` are asked to do alike."""

    store: str
    out: Path
    annotations: Path
    extra_annotations: Path | None

    fold: int | None
    folds: int | None
    group: GroupChoice
    groups: Path | None
    manifest: Path | None

    task: str | None
    settings: tuple[tuple[str, str], ...]
    epochs: int | None
    seed: int
    seeds: int

    resume: bool
    replace: bool
    tensorboard: bool | None
    plots: bool
    figures: Figures

    workers: int
    scheduler: str | None
    jobqueue: tuple[str, ...]
    shard: tuple[int, int]
    retries: int

    def set_by_options(self, modalities: str | None = None) -> dict[str, str]:
        """{setting: text} of the options and of --set. Raises ValueError on one that is given twice."""
        options = {"task": self.task, "modalities": modalities, "max_epochs": self.epochs}
        given = {name: str(value) for name, value in options.items() if value is not None}
        settings = dict(self.settings)
        if twice := sorted(set(given) & set(settings)):
            raise ValueError(f"{', '.join(twice)}: given twice, as an option and by --set")
        if "seed" in settings:
            raise ValueError("give the seed by --seed")
        if "protocol" in settings:
            raise ValueError("only `avfuse compare --protocol` trains by another protocol")
        return {**given, **settings, "seed": str(self.seed)}


@dataclass(frozen=True, kw_only=True)
class TrainRequest(RunsRequest):
    """What `avfuse train` is asked to do."""

    preset: str
    modalities: str | None

    def config(self) -> TrainConfig:
        """The preset with what the options change. Raises ValueError on a wrong setting."""
        return with_settings(preset(self.preset), self.set_by_options(self.modalities))


@dataclass(frozen=True, kw_only=True)
class FinetuneRequest(RunsRequest):
    """What `avfuse finetune` is asked to do. `modalities`: stored features beside those that are tuned."""

    preset: str
    modalities: str | None
    visual: str
    audio: str
    weights: tuple[tuple[str, Path], ...]
    untrained: int | None
    micro_batch: int

    def run_config(self) -> RunConfig:
        """How to run."""
        return replace(super().run_config(), micro_batch_rows=self.micro_batch)

    def networks(self) -> FinetuneConfig:
        """Which networks are tuned. Raises ValueError if there is none, or one is unknown."""
        return FinetuneConfig(visual=self.visual, audio=self.audio)

    def config(self, sources: Mapping[str, WeightSource]) -> TrainConfig:
        """The preset with tuned modalities in front, and what the options change; `sources`: where weights come from.

        Raises ValueError on a wrong setting.
        """
        began = [
            f"{name}={source.sha256 or f'{UNTRAINED} {source.untrained_seed}'}" for name, source in sources.items()
        ]
        tuned = replace(self.networks(), weights=tuple(began))
        given = [name for name in map(str.strip, (self.modalities or "").split(",")) if name]
        first = [name for name in tuned.networks if name not in given]
        changed = replace(
            preset(self.preset), modalities=(*first, *given), finetune=tuned, early_stop=FINETUNE_EARLY_STOP
        )
        return with_settings(changed, self.set_by_options())


@dataclass(frozen=True, kw_only=True)
class PicturesRequest:
    """What `avfuse finetune --images` is asked to do; `table`: the CSV file of the pictures."""

    images: Path
    table: Path
    visual: str
    weights: tuple[tuple[str, Path], ...]
    untrained: int | None
    settings: tuple[tuple[str, str], ...]
    epochs: int | None
    seed: int
    out: Path
    device: str
    precision: Precision
    memory_gb: float | None
    resume: bool
    as_json: bool

    def network(self) -> tuple[str, str]:
        """The feature whose weights come out, and its network. Raises ValueError on one that takes no faces."""
        ((feature, network),) = FinetuneConfig(visual=self.visual, audio="none").networks.items()
        return feature, network

    def config(self) -> PictureConfig:
        """Settings, changed by what the options say. Raises ValueError on a wrong one."""
        given = {"seed": str(self.seed)} | ({} if self.epochs is None else {"max_epochs": str(self.epochs)})
        settings = dict(self.settings)
        if twice := sorted(set(given) & set(settings)):
            raise ValueError(f"{', '.join(twice)}: given twice, as an option and by --set")
        return picture_settings({**settings, **given})


@dataclass(frozen=True, kw_only=True)
class CompareRequest(RunsRequest):
    """What `avfuse compare` is asked to do. `modalities`: each text is one list, or several with `;` between them."""

    presets: str | None
    modalities: tuple[str, ...]
    grid: str | None
    protocol: Literal["s4-window"] | None

    def modality_sets(self) -> list[tuple[str, ...]]:
        """Each list of features once, in the order in which they are given."""
        lists = [
            tuple(filter(None, map(str.strip, each.split(",")))) for one in self.modalities for each in one.split(";")
        ]
        return list(dict.fromkeys(filter(None, lists)))


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest(RunRequest):
    """What `avfuse evaluate` is asked to do."""

    runs: tuple[Path, ...]
    smooth: str
    allow_leak: bool = False
    figures: Figures = "png"


@dataclass(frozen=True, kw_only=True)
class PredictRequest(RunRequest):
    """What `avfuse predict` is asked to do."""

    store: str
    runs: tuple[Path, ...]
    smooth: str
    submission: Path | None = None
    sample: Path | None = None
    without_seen: bool = False
    trials: tuple[str, ...] | None = None
