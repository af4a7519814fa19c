"""Where a trial's numbers come from: the attributes that let anybody check or repeat them, and compare trials.

Tested by tests/faults/test_replacing.py and tests/pipeline/runs/test_small.py.
"""

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

from ...encoders.weights.resolve import WeightSource, weight_names
from ...features_store.disk.atomic import sha256_of
from ...features_store.schema import JsonValue
from ..config import ALGORITHM, ExtractConfig, fingerprint, fingerprint_of, used_settings
from ..media.process import ffmpeg_version
from ..media.types import VideoInfo

_PACKAGES = ("avfuse", "torch", "zarr", "numpy", "facenet-pytorch", "torchvggish")
_STEP_TOLERANCE_S = 0.002  # containers that count in ms make the steps of a constant rate differ by 1 ms


def video_attributes(info: VideoInfo, time_s: NDArray[np.float64]) -> dict[str, JsonValue]:
    """Facts of the video file and of its decoded frames at `time_s` [N] s."""
    mean_fps = Fraction(0)
    if len(time_s) > 1:
        mean_fps = Fraction((len(time_s) - 1) / (time_s[-1] - time_s[0])).limit_denominator(1001)
    return {
        "frames_decoded": len(time_s),
        "fps": str(info.fps or mean_fps),
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


def has_crops(folder: Path | None) -> bool:
    """Whether the organiser's crops of a trial are there."""
    if folder is None:
        return False
    try:
        with os.scandir(folder) as entries:
            return any(entry.name.endswith(".jpg") for entry in entries)
    except OSError:
        return False


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
        "algorithm": ALGORITHM,
        "settings": settings,
        "weights": {feature: source.as_attributes() for feature, source in weights.items()},
        "versions": {**versions, "ffmpeg": ffmpeg_version()},
    }


def stored_features(attributes: Mapping[str, JsonValue]) -> list[str] | None:
    """The features that a trial was made with and still has; None where it does not say (of before, or imported)."""
    settings, arrays = attributes.get("settings"), attributes.get("checksums")
    features = settings.get("features") if isinstance(settings, dict) else None
    if not isinstance(features, list):
        return None
    return [str(name) for name in features if not isinstance(arrays, dict) or name in arrays]


_UNRECORDED = "made by an older version of avfuse: which setting differs is not recorded"


def made_differently(
    attributes: Mapping[str, JsonValue],
    config: ExtractConfig,
    fingerprint: str | None,
    weights: Mapping[str, WeightSource],
) -> list[str]:
    """What a trial was made with otherwise than these settings and weights would, by name with both values.

    Empty where its numbers are the same, and all there. `fingerprint` None: the weights are not known, and taken for
    those of the trial.
    """
    stored, features = attributes.get("settings"), stored_features(attributes)
    weights_then = attributes.get("weights")
    ids = {
        name: str(source.get("sha256") or f"untrained:{source.get('untrained_seed')}")
        for name, source in (weights_then.items() if isinstance(weights_then, dict) else ())
        if isinstance(source, dict)
    }
    if fingerprint is None:
        known = {name: ids[name] for name in weight_names(config.networks, config.vggish_output) if name in ids}
        fingerprint = fingerprint_of(asdict(config), known)
    whole = features is None or set(config.features) <= set(features)
    if attributes.get("fingerprint") == fingerprint and whole:
        return []
    if not isinstance(stored, dict) or features is None:
        return [_UNRECORDED]

    differences = []
    if set(features) != set(config.features):
        differences.append(f"features: {', '.join(features) or 'none'} in the store, {', '.join(config.features)} now")
    # Settings that came with a later version had their default before.
    before = used_settings({**asdict(ExtractConfig()), **stored, "features": features})
    now = used_settings(asdict(config))
    for name in now:
        if name != "features" and name in before and before[name] != now[name]:
            old, new = ("default" if value is None else value for value in (before[name], now[name]))
            differences.append(f"{name}: {old} in the store, {new} now")
    for name, source in weights.items():
        if name in ids and ids[name] != source.identity:
            differences.append(f"weights of {name}: {ids[name][:16]} in the store, {source.identity[:16]} now")

    algorithm = attributes.get("algorithm")
    if algorithm is None:  # trials of before do not say, but the fingerprint has it
        versions = attributes.get("versions")
        version_then = versions.get("avfuse", "of before") if isinstance(versions, dict) else "of before"
        made_now = fingerprint_of(stored, ids) == attributes.get("fingerprint")
        algorithm = ALGORITHM if made_now else f"that of avfuse {version_then}"
    if algorithm != ALGORITHM:
        differences.append(
            f"algorithm: {algorithm} in the store, {ALGORITHM} now (other numbers from the same settings)"
        )
    return differences or [_UNRECORDED]
