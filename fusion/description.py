"""What a run is, as its folder tells it: settings, fold, features, statistics, environment. Written at its start.

    config.json  fold.json  features.json  statistics.json  environment.json

Tested by tests/fusion/test_checkpoint.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..features_store.disk import remove_file
from .config import TrainConfig
from .json_files import read_json, write_json
from .manifest import Fold
from .settings import as_json, from_json
from .statistics import Statistics
from .statistics import as_json as statistics_json
from .statistics import from_json as statistics_from_json

FORMAT = 1
_EARLY = ("tensorboard", "fold.json", "features.json", "statistics.json", "environment.json", ".claims", ".tmp")
_TEMPORARY = re.compile(r"\.\d+\.[0-9a-f]{12}")


@dataclass(frozen=True)
class Features:
    """Which features a run has seen: the store, {fingerprint: trials}, untrained ones, widths by modality.

    `trials`: of each its `fingerprint` and the `sha256` of its rows; `made`: {fingerprint: settings and weights}.
    """

    store: str
    fingerprints: Mapping[str, int]
    untrained: tuple[str, ...]
    widths: Mapping[str, int]
    trials: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    made: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Description:
    """What a run is: settings, fold, statistics, features, where its labels came from and their sha256.

    `labels`: the sha256 of each trial's own.
    """

    config: TrainConfig
    fold: Fold
    statistics: Mapping[str, Statistics]
    features: Features
    annotations: str
    labels_sha256: str
    labels: Mapping[str, str] = field(default_factory=dict)


def is_empty(folder: Path) -> bool:
    """Whether a run may begin here: there is nothing, or what one has left that ended before config.json."""
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    return "config.json" not in found and all(name in _EARLY or _TEMPORARY.fullmatch(name) for name in found)


def write_description(folder: Path, described: Description, environment: Mapping[str, Any]) -> None:
    """Make the folder and write what does not change during the run; leftovers of a killed one go."""
    folder.mkdir(parents=True, exist_ok=True)
    for here, _, names in os.walk(folder):  # does not mind a folder that goes away meanwhile, as claims' do
        for name in filter(_TEMPORARY.fullmatch, names):
            remove_file(Path(here, name))
    labels = {"annotations": described.annotations, "labels_sha256": described.labels_sha256}
    write_json(folder / "fold.json", {**asdict(described.fold), **labels, "labels": dict(described.labels)})
    write_json(folder / "features.json", asdict(described.features))
    write_json(folder / "statistics.json", statistics_json(described.statistics))
    write_json(folder / "environment.json", environment)
    write_json(folder / "config.json", {"avfuse_run": FORMAT, **as_json(described.config)})


def read_description(folder: Path) -> Description:
    """What the run in a folder is. Raises ValueError where the folder holds none that this avfuse can read."""
    config = read_json(folder, "config.json")
    found = config.pop("avfuse_run", None)
    if found != FORMAT:
        raise ValueError(f"{folder / 'config.json'}: format {found}, this avfuse reads {FORMAT}")
    fold = read_json(folder, "fold.json")
    features = read_json(folder, "features.json")
    try:
        described = Description(
            config=from_json(config),
            fold=Fold(fold["number"], tuple(fold["train"]), tuple(fold["validation"])),
            statistics=statistics_from_json(read_json(folder, "statistics.json")),
            features=Features(**{**features, "untrained": tuple(features["untrained"])}),
            annotations=fold["annotations"],
            labels_sha256=fold["labels_sha256"],
            labels=fold.get("labels", {}),
        )
        widths = {name: len(described.statistics[name].mean) for name in described.config.modalities}
        if widths != described.features.widths:
            raise ValueError(f"statistics of widths {widths} for features of widths {described.features.widths}")
        return described
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} holds no run that this avfuse can read: {error}") from error
