"""Settings of a training run: what changes the numbers (`TrainConfig`) apart from how to run (`RunConfig`).

Every field of `TrainConfig` and of its `model` is a setting for `--set KEY=VALUE`. docs/training.md explains each.
Presets are entries of models/table.py, tasks those of tasks/table.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Literal, get_args

from ..encoders.contract import Precision
from ..shell.text import counted
from .tasks.table import LOSS_SETTINGS, TASKS, used_settings

StatisticsKind = Literal["scalar", "feature"]
RowsInLoss = Literal["labelled", "any", "all"]
AudioRows = Literal["all", "speech"]
Optimizer = Literal["adam", "adamw"]
Protocol = Literal["trials", "s4-window"]
VaLoss = Literal["ccc", "mse"]  # of pictures
Figures = Literal["png", "pdf", "svg"]  # formats of pictures

SPEECH = "speech"  # the feature that says where somebody speaks

# Networks that can be tuned: of faces with the crops they are fed, of sound with the feature they make.
VISUAL_NETWORKS = {"suzhang40": "crop48", "iresnet112": "crop112"}
AUDIO_NETWORKS = {"vgg": "logmel_vgg"}
_TIMM = "timm:"
UNTRAINED = "untrained"  # and the seed, where weights begin from random numbers

# What to change to need less memory, as errors put it.
LESS_MEMORY = "a smaller batch_size or --memory-gb"


def check_settings(
    settings: object, positive: Iterable[str] = (), not_negative: Iterable[str] = (), below_one: Iterable[str] = ()
) -> None:
    """Raise ValueError unless these settings, or all the numbers in them, are > 0, >= 0 or in [0, 1)."""
    for name in positive:
        value = getattr(settings, name)
        numbers = value if isinstance(value, tuple) else (value,)
        if not numbers or min(numbers) <= 0:
            raise ValueError(f"{name} must be above 0, got {value}")
    for name in not_negative:
        if getattr(settings, name) < 0:
            raise ValueError(f"{name} must not be below 0, got {getattr(settings, name)}")
    for name in below_one:
        if not 0 <= getattr(settings, name) < 1:
            raise ValueError(f"{name} must be in [0, 1), got {getattr(settings, name)}")


@dataclass(frozen=True)
class HeadSettings:
    """Settings of a head: each head's own, frozen and checked at birth, lie beside its network in models/."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """How backbones are tuned together with the head. Source: docs/sources.md (Fine-tuning).

    `visual` and `audio`: the networks, `none` for neither. `visual_groups`, `audio_groups`: what is released one after
    the other, as patterns of names (`output_layer.*; body.21.*, body.22.*`); empty: the last layers, as published.
    `releases`: so many of the groups, the next one at least `release_epochs` after the last. `flip`, `crop`: drawn once
    a window. `backbone_lr`: the rate of what is released. `weights`: what each network began from, by name and hash.
    Raises ValueError on values out of range, and where nothing is left to tune.
    """

    visual: str = "suzhang40"
    audio: str = "vgg"
    visual_groups: str = ""
    audio_groups: str = ""
    backbone_lr: float = 1e-5
    releases: int = 3
    release_epochs: int = 5
    flip: bool = True
    crop: bool = True
    weights: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_settings(self, ("backbone_lr",), ("releases", "release_epochs"))
        if self.visual not in ("none", *VISUAL_NETWORKS) and not self.visual.startswith(_TIMM):
            raise ValueError(f"visual={self.visual}: there are {', '.join(VISUAL_NETWORKS)}, timm:NAME and none")
        if self.audio not in ("none", *AUDIO_NETWORKS):
            raise ValueError(f"audio={self.audio}: there are {', '.join(AUDIO_NETWORKS)} and none")
        if not self.networks:
            raise ValueError(
                "visual=none and audio=none: nothing is left to tune; `avfuse train` trains the head alone"
            )
        for groups, network in ((self.visual_groups, self.visual), (self.audio_groups, self.audio)):
            if groups and network == "none":
                raise ValueError(f"groups {groups!r} are given for a network that is 'none'")

    @property
    def networks(self) -> dict[str, str]:
        """{modality: its network, as `open_backbone` calls it}: {"iresnet50": "suzhang40"}."""
        visual = "iresnet50" if self.visual in VISUAL_NETWORKS else self.visual
        found = {visual: self.visual, "logmel_vgg": AUDIO_NETWORKS.get(self.audio, "none")}
        return {modality: network for modality, network in found.items() if network != "none"}

    @property
    def views(self) -> dict[str, str]:
        """{modality: the array of the store that its network is fed}: {"iresnet50": "crop48"}."""
        faces = VISUAL_NETWORKS.get(self.visual, "crop112")
        return {modality: "logmel" if modality == "logmel_vgg" else faces for modality in self.networks}

    @property
    def untrained(self) -> list[str]:
        """Modalities whose networks began from random numbers."""
        return [
            name for name, _, began in (each.partition("=") for each in self.weights) if began.startswith(UNTRAINED)
        ]

    @property
    def groups(self) -> dict[str, str]:
        """{modality: what is released, as it is given}."""
        return {
            modality: self.audio_groups if modality == "logmel_vgg" else self.visual_groups
            for modality in self.networks
        }


@dataclass(frozen=True, kw_only=True)
class PictureConfig:
    """How a face network is tuned on pictures. Source: docs/sources.md (Fine-tuning).

    `lr` is that of the linear layer on its rows, `backbone_lr` that of the released layers. Below `min_lr`, and not
    before `release_epochs` epochs, the next group is released; `releases`: so many of the `visual_groups`. Pictures
    are turned by up to `degrees`. `validation_share` is that of a table without a column `split`. `weight_decay` and
    `plateau_factor` are those of training (docs/training.md). Raises ValueError on a value out of its range.
    """

    visual_groups: str = ""
    lr: float = 1e-3
    backbone_lr: float = 1e-4
    weight_decay: float = 1e-3
    batch_size: int = 64
    max_epochs: int = 60
    early_stop: int = 15
    warmup_epochs: int = 1
    plateau_factor: float = 0.1
    plateau_patience: int = 2
    min_lr: float = 1e-5
    releases: int = 3
    release_epochs: int = 3
    degrees: float = 10.0
    flip: bool = True
    va_loss: VaLoss = "ccc"
    validation_share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        positive = ("lr", "backbone_lr", "max_epochs", "early_stop", "min_lr", "plateau_factor", "validation_share")
        not_negative = ("weight_decay", "warmup_epochs", "plateau_patience", "releases", "release_epochs", "degrees")
        check_settings(self, positive, not_negative, ("plateau_factor", "validation_share"))
        if self.batch_size < 2:
            raise ValueError(f"batch_size must be 2 or more, got {self.batch_size}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that changes the numbers of a run, the data aside. Source: docs/sources.md (Windows, Schedule).

    `audio_rows`: `speech` makes rows of sound invalid where the probability of speech is below `speech_threshold`.
    `protocol`: validated on trials that are held out or, as S4 does, on windows that overlap those it learns from.
    `finetune`: some of the modalities are no stored rows, but what backbones make, which learn too. `min_lr` is then
    the learning rate below which the next of their groups is released.
    Every setting with unit, range and source: docs/training.md. Raises ValueError on a value out of its range.
    """

    preset: str
    task: str = "va"
    modalities: tuple[str, ...] = ("iresnet50", "vggish", "logmel_vgg")
    seed: int = 0
    window_frames: int = 300
    hop_frames: int = 200
    statistics: StatisticsKind = "scalar"
    rows_in_loss: RowsInLoss = "any"
    audio_rows: AudioRows = "all"
    speech_threshold: float = 0.5
    loss: str = "auto"
    focal_gamma: float = 2.0
    label_smoothing: float = 0.0
    class_weights: bool = True
    label_smoothing_frames: int = 1
    modality_dropout: float = 0.0
    optimizer: Optimizer = "adam"
    lr: float = 1e-4
    weight_decay: float = 1e-3
    batch_size: int = 12
    grad_clip: float = 0.0
    warmup_epochs: int = 5
    plateau_patience: int = 5
    plateau_factor: float = 0.1
    min_lr: float = 1e-8
    max_epochs: int = 100
    early_stop: int = 20
    restore_best: bool = True
    protocol: Protocol = "trials"
    finetune: FinetuneConfig | None = None
    model: HeadSettings

    def __post_init__(self) -> None:
        check_settings(
            self,
            ("window_frames", "hop_frames", "batch_size", "max_epochs", "early_stop", "lr", "plateau_factor"),
            ("seed", "weight_decay", "grad_clip", "warmup_epochs", "plateau_patience", "min_lr", "focal_gamma"),
            ("modality_dropout", "plateau_factor", "label_smoothing", "speech_threshold"),
        )
        for value, choices in (
            (self.task, tuple(TASKS)),
            (self.statistics, get_args(StatisticsKind)),
            (self.rows_in_loss, get_args(RowsInLoss)),
            (self.audio_rows, get_args(AudioRows)),
            (self.optimizer, get_args(Optimizer)),
            (self.protocol, get_args(Protocol)),
        ):
            if value not in choices:
                raise ValueError(f"{value!r} is not one of {', '.join(choices)}")
        task = TASKS[self.task]
        if self.loss not in ("auto", *task.losses):
            raise ValueError(f"loss {self.loss!r}: the task {self.task} has {', '.join(['auto', *task.losses])}")
        unused = {*LOSS_SETTINGS} - used_settings(task, self.loss_name)
        for each in fields(self):
            if each.name in unused and getattr(self, each.name) != each.default:
                raise ValueError(
                    f"{each.name} changes nothing under the task {self.task} and its loss {self.loss_name}"
                )
        if self.audio_rows == "all" and self.speech_threshold != type(self).speech_threshold:
            raise ValueError("speech_threshold changes nothing without audio_rows=speech")
        if self.label_smoothing_frames < 1 or self.label_smoothing_frames % 2 == 0:
            raise ValueError(f"label_smoothing_frames must be odd, 1 or more, got {self.label_smoothing_frames}")
        if self.window_frames < task.least_rows:
            raise ValueError("window_frames 1: a window of one frame has no CCC; use 2 or more")
        if self.hop_frames > self.window_frames:
            raise ValueError(
                f"hop_frames {self.hop_frames} leaves gaps between windows of {counted(self.window_frames, 'frame')}"
            )
        if not self.modalities or len(set(self.modalities)) != len(self.modalities):
            raise ValueError(f"modalities must be distinct feature names, got {list(self.modalities)}")
        if self.finetune is not None:
            if lacking := [name for name in self.finetune.networks if name not in self.modalities]:
                raise ValueError(f"{', '.join(lacking)} is tuned and must be among the modalities {self.modalities}")
            if self.protocol != "trials":
                raise ValueError(f"protocol={self.protocol} is for runs on stored features; tuned ones hold trials out")

    @property
    def views(self) -> dict[str, str]:
        """{modality that a backbone makes: the array of the store that it is fed}; empty unless backbones are tuned."""
        return {} if self.finetune is None else self.finetune.views

    @property
    def untrained_networks(self) -> list[str]:
        """Modalities whose tuned networks began from random numbers."""
        return [] if self.finetune is None else self.finetune.untrained

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the network gives for a frame: valence, arousal or both; the classes; the action units."""
        return TASKS[self.task].columns

    @property
    def inputs(self) -> tuple[str, ...]:
        """What is read: the modalities, or views in their place, and the probability of speech, if it masks rows."""
        read = [self.views.get(name, name) for name in self.modalities]
        return tuple(dict.fromkeys([*read, *([] if self.speech_above is None else [SPEECH])]))

    @property
    def speech_above(self) -> float | None:
        """The least probability of speech of a row of sound that counts; None: all do."""
        return self.speech_threshold if self.audio_rows == "speech" else None

    @property
    def loss_name(self) -> str:
        """The loss: the task's first one unless another is chosen."""
        return next(iter(TASKS[self.task].losses)) if self.loss == "auto" else self.loss


@dataclass(frozen=True)
class RunConfig:
    """How to run. Numbers change only by rounding, and compiled by what dropout draws. Kept in environment.json.

    `threads`: for the arithmetic of one process; 0: torch's default. `processes`: how many share this machine's memory.
    `micro_batch_rows`: views that a backbone takes at once.
    """

    device: str = "auto"
    precision: Precision = "fp32"
    compile: bool = False
    memory_gb: float | None = None
    threads: int = 0
    processes: int = 1
    micro_batch_rows: int = 128
