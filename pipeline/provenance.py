"""Where a trial's numbers come from: the attributes that let anybody check or repeat them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..features_store.types import JsonValue
from .config import ExtractConfig, fingerprint
from .media import VideoInfo, ffmpeg_version
from .registry import sha256_of
from .weights import WeightSource

_PACKAGES = ("avfuse", "torch", "zarr", "numpy", "facenet-pytorch", "torchvggish")
_STEP_TOLERANCE_S = 0.002  # containers that count in ms make the steps of a constant rate differ by 1 ms


def video_attributes(info: VideoInfo, time_s: NDArray[np.float64]) -> dict[str, JsonValue]:
    """Facts of the video file and of its decoded frames at `time_s` [N] s."""
    return {
        "frames_decoded": len(time_s),
        "fps": str(info.fps or _mean_fps(time_s)),
        "vfr": is_vfr(time_s),
        "video_start_s": info.video_start_s,
        "audio_start_s": info.audio_start_s,
        "video_stream": info.video_name,
        "audio_stream": info.audio_name,
        "source": source_attributes(info.path),
    }


def is_vfr(time_s: NDArray[np.float64]) -> bool:
    """Whether the steps between frames differ by more than a container's rounding."""
    steps_s = np.diff(time_s)
    return bool(len(steps_s) > 0 and steps_s.max() - steps_s.min() > _STEP_TOLERANCE_S)


def _mean_fps(time_s: NDArray[np.float64]) -> Fraction:
    if len(time_s) < 2:
        return Fraction(0)
    return Fraction((len(time_s) - 1) / (time_s[-1] - time_s[0])).limit_denominator(1001)


def source_attributes(path: Path) -> dict[str, JsonValue]:
    """File name, size, modification time and sha256 of the content."""
    status = path.stat()
    return {
        "name": path.name,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "sha256": sha256_of(path),
    }


def crops_digest(folder: Path) -> str:
    """Sha256 of the names in a folder of crops: it changes when the organiser's next batch adds some."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
    except OSError:
        names = []
    return hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()


def identity(config: ExtractConfig, weights: Mapping[str, WeightSource]) -> str:
    """The fingerprint of these settings and weights."""
    return fingerprint(config, {name: source.identity for name, source in weights.items()})


def run_attributes(
    config: ExtractConfig, fingerprint: str, weights: Mapping[str, WeightSource]
) -> dict[str, JsonValue]:
    """Settings, weights and versions: what every trial of a run shares."""
    settings: dict[str, JsonValue] = {
        name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()
    }
    versions: dict[str, JsonValue] = {name: version(name) for name in _PACKAGES}
    return {
        "fingerprint": fingerprint,
        "settings": settings,
        "weights": {feature: source.as_attributes() for feature, source in weights.items()},
        "versions": {**versions, "ffmpeg": ffmpeg_version()},
    }
