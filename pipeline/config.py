"""Settings: what changes the numbers (`ExtractConfig`) apart from how to run (`RunConfig`)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from ..features_store.clock import AudioAlign, MissingFace

FacePolicy = Literal["largest", "central", "left", "right", "all"]
Precision = Literal["fp32", "bf16", "fp16"]
VggishOutput = Literal["raw", "relu", "pca"]

VISUAL_FEATURES = ("iresnet50",)
PATCH_FEATURES = ("vggish", "logmel_vgg")
AUDIO_FEATURES = (*PATCH_FEATURES, "mfcc", "logmel")
FEATURES = (*VISUAL_FEATURES, *AUDIO_FEATURES)
NETWORK_FEATURES = (*VISUAL_FEATURES, *PATCH_FEATURES)
DEFAULT_FEATURES = NETWORK_FEATURES

# Side of an aligned face: what `faces` cuts out is what `embed` takes in.
CROP_PX = 112

# What takes less memory.
LESS_MEMORY = "a smaller --batch-size"

# Raised whenever the same settings begin to give other numbers, so that old trials are extracted again.
ALGORITHM = 2


@dataclass(frozen=True)
class ExtractConfig:
    """Everything that changes the numbers in a trial, weight files aside.

    `detect_every`: frames from one that is searched whole for faces to the next; 1: all of them.
    """

    features: tuple[str, ...] = DEFAULT_FEATURES
    face: FacePolicy = "largest"
    detect_every: int = 30
    missing_face: MissingFace = "repeat"
    audio_align: AudioAlign = "start"
    vggish_output: VggishOutput = "raw"
    precision: Precision = "fp32"
    aligned: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.features if name not in FEATURES]
        if unknown or not self.features or len(set(self.features)) != len(self.features):
            raise ValueError(f"features are distinct names of {', '.join(FEATURES)}, got {list(self.features)}")
        for value, choices in (
            (self.face, FacePolicy),
            (self.missing_face, MissingFace),
            (self.audio_align, AudioAlign),
            (self.vggish_output, VggishOutput),
            (self.precision, Precision),
        ):
            if value not in get_args(choices):
                raise ValueError(f"{value!r} is none of {', '.join(get_args(choices))}")
        if self.detect_every < 1:
            raise ValueError(f"frames are searched whole every 1 or more, got {self.detect_every}")

    @property
    def visual(self) -> tuple[str, ...]:
        """Features made from the face."""
        return tuple(name for name in self.features if name in VISUAL_FEATURES)

    @property
    def networks(self) -> tuple[str, ...]:
        """Features that need pretrained weights."""
        return tuple(name for name in self.features if name in NETWORK_FEATURES)


@dataclass(frozen=True)
class RunConfig:
    """How to run: nothing here changes a number beyond rounding.

    `threads`: for the arithmetic of one process; 0: as many as it may use cores. `videos_at_once`: in one process;
    0: one, on a GPU several. A video may take `timeout_floor_s` and `timeout_factor` times its duration.
    """

    device: str = "auto"
    batch_size: int = 32
    stall_timeout_s: float = 60.0
    threads: int = 0
    videos_at_once: int = 0
    timeout_factor: float = 100.0
    timeout_floor_s: float = 120.0


def fingerprint(config: ExtractConfig, weight_ids: Mapping[str, str]) -> str:
    """Hash of the settings and of the weights (`{feature: sha256, or the recipe of untrained ones}`).

    The order of the features, and settings that none of them uses, do not count.
    """
    settings = {**asdict(config), "features": sorted(config.features)}
    unused = {
        "face": not config.visual,
        "detect_every": not config.visual or config.aligned,
        "missing_face": not config.visual,
        "aligned": not config.visual,
        "audio_align": set(config.features) == set(config.visual),
        "vggish_output": "vggish" not in config.features,
        "precision": not config.networks,
    }
    used = {name: value for name, value in settings.items() if not unused.get(name, False)}
    identity = {"algorithm": ALGORITHM, "settings": used, "weights": dict(weight_ids)}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
