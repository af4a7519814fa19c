"""Settings: what changes the numbers (`ExtractConfig`), kept apart from how to run (`RunConfig`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ..encoders.contract import Precision
from ..encoders.plugins import EncoderFile
from ..encoders.table import DEFAULT_FEATURES, VggishOutput, feature, of_stream
from ..features_store.schema import AudioAlign, MissingFace

RecogniserPrecision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
FacePolicy = Literal["largest", "central", "left", "right", "all"]
Denoise = Literal["dfn3"]

_LAYERS = re.compile(r"last4|last|\d+|(\d+)-(\d+)")

# What to try when memory runs out.
LESS_MEMORY = "a smaller --batch-size"


@dataclass(frozen=True)
class ExtractConfig:
    """Everything that changes the numbers in a trial, weight files aside.

    `detect_every`: frames from one that is searched whole for faces to the next; 1: every frame is.
    `denoise`: what cleans the sound before every audio feature; None: nothing does. `audio_file`: the sound is that of
    a file for each trial, which is part of no fingerprint: entries name it, as trials name their video.
    `video_stream`, `audio_stream`: N of ffmpeg's `v:N` and `a:N`; None: the best one of each video. `layers`: of the
    encoders of sound: `last4`, `last`, one by its number or the mean of `A-B`. `encoders`: the user's own files, known
    to this process by `use_files`. Raises ValueError for unknown features, and values that are not allowed.
    """

    features: tuple[str, ...] = DEFAULT_FEATURES
    face: FacePolicy = "largest"
    detect_every: int = 30
    missing_face: MissingFace = "repeat"
    audio_align: AudioAlign = "start"
    vggish_output: VggishOutput = "raw"
    precision: Precision = "fp32"
    aligned: bool = False
    video_stream: int | None = None
    audio_stream: int | None = None
    denoise: Denoise | None = None
    audio_file: bool = False
    layers: str = "last4"
    encoders: tuple[EncoderFile, ...] = ()

    def __post_init__(self) -> None:
        for name in self.features:
            feature(name)
        if not self.features or len(set(self.features)) != len(self.features):
            raise ValueError(f"features must be different names, got {list(self.features)}")
        for value, choices in (
            (self.face, FacePolicy),
            (self.missing_face, MissingFace),
            (self.audio_align, AudioAlign),
            (self.vggish_output, VggishOutput),
            (self.precision, Precision),
        ):
            if value not in get_args(choices):
                raise ValueError(f"{value!r} is not one of {', '.join(get_args(choices))}")
        if self.denoise not in (None, *get_args(Denoise)):
            raise ValueError(f"{self.denoise!r} is not one of {', '.join(get_args(Denoise))}")
        between = _LAYERS.fullmatch(self.layers)
        if between is None or (between[1] and int(between[1]) > int(between[2])):
            raise ValueError(f"layers are last4, last, a number or A-B with A ≤ B, got {self.layers!r}")
        if self.detect_every < 1:
            raise ValueError(f"detect_every is 1 or more frames, got {self.detect_every}")
        for number in (self.video_stream, self.audio_stream):
            if number is not None and number < 0:
                raise ValueError(f"streams are numbered from 0, got {number}")

    @property
    def visual(self) -> tuple[str, ...]:
        """Features made from the face."""
        return of_stream(self.features, "visual")

    @property
    def audio(self) -> tuple[str, ...]:
        """Features made from the sound."""
        return of_stream(self.features, "audio")

    @property
    def text(self) -> tuple[str, ...]:
        """Features made from words."""
        return of_stream(self.features, "text")

    @property
    def networks(self) -> tuple[str, ...]:
        """Features that a network makes."""
        return tuple(name for name in self.features if feature(name).network or feature(name).load)


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


@dataclass(frozen=True)
class RecogniserSettings:
    """Which model turns speech into words, and how it is run: settings of `avfuse transcribe`.

    `language`: its code (`en`), None: as the model hears it in each video. `threads`: 0: as many as it likes; `device`:
    auto, cpu or cuda[:N]; `precision` auto: fp16 on a GPU, else fp32. `beam`: readings that are followed at once.
    """

    folder: Path
    language: str | None = None
    device: str = "auto"
    precision: RecogniserPrecision = "auto"
    beam: int = 5
    threads: int = 0
