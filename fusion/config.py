"""Settings of a training run: what changes the numbers (`TrainConfig`) apart from how to run (`RunConfig`).

Every field of `TrainConfig` and of its `model` is a setting for `--set KEY=VALUE`. docs/training.md explains each.
Presets are entries of models/table.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from ..encoders.table import Precision
from ..shell.text import counted

TaskName = Literal["va", "valence", "arousal"]
StatisticsKind = Literal["scalar", "feature"]
RowsInLoss = Literal["labelled", "any", "all"]
Optimizer = Literal["adam", "adamw"]
Protocol = Literal["trials", "s4-window"]

# What to change to need less memory, as errors put it.
LESS_MEMORY = "a smaller batch_size or --memory-gb"
# The columns of labels and predictions, in the order of the annotation files.
COLUMNS = ("valence", "arousal")
TASKS: dict[TaskName, tuple[str, ...]] = {
    "va": COLUMNS,
    "valence": ("valence",),
    "arousal": ("arousal",),
}


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
class TrainConfig:
    """Everything that changes the numbers of a run, the data aside. Source: docs/sources.md (Windows, Schedule).

    `protocol`: validated on trials that are held out or, as S4 does, on windows that overlap those it learns from.
    """

    preset: str
    task: TaskName = "va"
    modalities: tuple[str, ...] = ("iresnet50", "vggish", "logmel_vgg")
    seed: int = 0
    window_frames: int = 300
    hop_frames: int = 200
    statistics: StatisticsKind = "scalar"
    rows_in_loss: RowsInLoss = "any"
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
    model: HeadSettings

    def __post_init__(self) -> None:
        check_settings(
            self,
            ("window_frames", "hop_frames", "batch_size", "max_epochs", "early_stop", "lr", "plateau_factor"),
            ("seed", "weight_decay", "grad_clip", "warmup_epochs", "plateau_patience", "min_lr"),
            ("modality_dropout", "plateau_factor"),
        )
        if self.window_frames < 2:
            raise ValueError("window_frames 1: a window of one frame has no CCC; use 2 or more")
        if self.hop_frames > self.window_frames:
            raise ValueError(
                f"hop_frames {self.hop_frames} leaves gaps between windows of {counted(self.window_frames, 'frame')}"
            )
        if not self.modalities or len(set(self.modalities)) != len(self.modalities):
            raise ValueError(f"modalities must be distinct feature names, got {list(self.modalities)}")
        for value, choices in (
            (self.task, TaskName),
            (self.statistics, StatisticsKind),
            (self.rows_in_loss, RowsInLoss),
            (self.optimizer, Optimizer),
            (self.protocol, Protocol),
        ):
            if value not in get_args(choices):
                raise ValueError(f"{value!r} is not one of {', '.join(get_args(choices))}")

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the network predicts for a frame: valence, arousal or both."""
        return TASKS[self.task]


@dataclass(frozen=True)
class RunConfig:
    """How to run. Numbers change only by rounding, and compiled by what dropout draws. Kept in environment.json.

    `threads`: for the arithmetic of one process; 0: torch's default. `processes`: how many share this machine's memory.
    """

    device: str = "auto"
    precision: Precision = "fp32"
    compile: bool = False
    memory_gb: float | None = None
    threads: int = 0
    processes: int = 1
