"""What a run is, as its folder records it: settings, fold, features, statistics, environment. Written at its start.

    config.json  fold.json  features.json  statistics.json  environment.json

Tested by tests/fusion/artifacts/test_state.py.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ...features_store.claims.claim_file import look
from ...features_store.claims.claims import CLAIMS, TTL_S, claim
from ...features_store.disk.atomic import remove_file, write_json
from ...features_store.entries import arrays_of, entries_of
from ...features_store.records.leaks import leaks
from ...features_store.records.provenance import making
from ...features_store.schema import JsonValue
from ..config import RunConfig, TrainConfig
from ..data.dataset import Dataset
from ..data.statistics import Statistics
from ..data.statistics import as_json as statistics_json
from ..data.statistics import from_json as statistics_from_json
from ..data.windows import Shape
from ..folds.manifest import Fold
from ..settings import as_json, from_json

FORMAT = 1
_EARLY = ("tensorboard", "fold.json", "features.json", "statistics.json", "environment.json", ".claims", ".tmp")
_PACKAGES = ("avfuse", "torch", "numpy", "zarr", "safetensors")
_TEMPORARY = re.compile(r"\.\d+\.[0-9a-f]{12}")


@dataclass(frozen=True)
class Features:
    """Which features a run has seen: the store, {modality: {fingerprint: trials}}, untrained ones, shapes of rows.

    features.json has `shapes` as `widths`: a number for a vector, a list for a map. `trials`: of each its
    `fingerprints` by modality and the `sha256` of its rows; `made`: {fingerprint: settings and weights in words};
    `tuned`: {modality: {fingerprint: what its weights say of their tuning}}, in the file only where weights were tuned.
    `entries`: of each modality what it takes to extract it again, its entry in the store and those of what it is made
    from, of the most frequent fingerprint. Runs of older versions do not have it.
    """

    store: str
    fingerprints: Mapping[str, Mapping[str, int]]
    untrained: tuple[str, ...]
    shapes: Mapping[str, Shape]
    trials: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    made: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    tuned: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    entries: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)

    def leaks(self, trials: Iterable[str]) -> dict[str, list[str]]:
        """{modality: those of these trials that its weights were tuned on}."""
        return leaks(self.tuned, {name: self.trials[name]["fingerprints"] for name in trials if name in self.trials})


@dataclass(frozen=True)
class Description:
    """What a run is: settings, fold, statistics, features, where its labels came from and their sha256.

    `labels`: the sha256 of each trial's own. `extra`: where further labels were from, and the trials that were only
    trained on, {"annotations", "trials"}; empty without.
    """

    config: TrainConfig
    fold: Fold
    statistics: Mapping[str, Statistics]
    features: Features
    annotations: str
    labels_sha256: str
    labels: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


def features_from(found: Mapping[str, Any]) -> Features:
    """What features.json says. Runs of format 1 of the store had one fingerprint for all modalities of a trial."""
    former = {name: count for name, count in found["fingerprints"].items() if isinstance(count, int)}
    shapes = {name: (each,) if isinstance(each, int) else tuple(each) for name, each in found["widths"].items()}
    if not former:
        others = {key: value for key, value in found.items() if key != "widths"}
        return Features(**{**others, "untrained": tuple(found["untrained"]), "shapes": shapes})
    modalities = list(shapes)
    made: dict[str, Mapping[str, str]] = {}
    now: dict[str, dict[str, str]] = {}  # by former fingerprint and modality
    for name in former:
        arrays = dict.fromkeys(array for modality in modalities for array in arrays_of(modality))
        entries = entries_of({**found.get("made", {}).get(name, {}), "fingerprint": name, "checksums": arrays})
        now[name] = {modality: str(entries[modality]["fingerprint"]) for modality in modalities}
        made |= {now[name][modality]: making(entries, modality) for modality in modalities}
    counts: dict[str, Counter[str]] = {modality: Counter() for modality in modalities}
    for name, count in former.items():
        for modality in modalities:
            counts[modality][now[name][modality]] += count
    trials = {
        trial: {"fingerprints": now.get(seen["fingerprint"], {}), "sha256": seen["sha256"]}
        for trial, seen in found.get("trials", {}).items()
    }
    return Features(found["store"], counts, tuple(found["untrained"]), shapes, trials, made)


def is_empty(folder: Path) -> bool:
    """Whether a run may begin in this folder: it holds nothing, or what a run left that ended before config.json."""
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    return "config.json" not in found and all(name in _EARLY or _TEMPORARY.fullmatch(name) for name in found)


def remove_temporaries(folder: Path) -> None:
    """Remove the temporary files of a run that was killed. Raises OSError."""
    for parent, _, names in os.walk(folder):  # does not mind a folder that is removed meanwhile, as claims' are
        for name in filter(_TEMPORARY.fullmatch, names):
            remove_file(Path(parent, name))


def write_description(folder: Path, described: Description, environment: Mapping[str, Any]) -> None:
    """Make the folder and write what does not change during the run; remove temporary files of a killed one."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_temporaries(folder)
    labels = {"annotations": described.annotations, "labels_sha256": described.labels_sha256}
    extra = {"extra": dict(described.extra)} if described.extra else {}
    write_json(folder / "fold.json", {**asdict(described.fold), **labels, "labels": dict(described.labels), **extra})
    features = {("widths" if key == "shapes" else key): value for key, value in asdict(described.features).items()}
    if not described.features.tuned:
        del features["tuned"]
    features["widths"] = {name: s[0] if len(s) == 1 else list(s) for name, s in described.features.shapes.items()}
    write_json(folder / "features.json", features)
    write_json(folder / "statistics.json", statistics_json(described.statistics))
    write_json(folder / "environment.json", environment)
    write_json(folder / "config.json", {"avfuse_run": FORMAT, **as_json(described.config)})


def read_description(folder: Path) -> Description:
    """What the run in a folder is. Raises ValueError if the folder does not hold one that this avfuse can read."""
    config = read_json(folder, "config.json")
    written = config.pop("avfuse_run", None)
    if written != FORMAT:
        raise ValueError(f"{folder / 'config.json'}: format {written}, this avfuse reads {FORMAT}")
    fold = read_json(folder, "fold.json")
    features = read_json(folder, "features.json")
    try:
        described = Description(
            config=from_json(config),
            fold=Fold(fold["number"], tuple(fold["train"]), tuple(fold["validation"])),
            statistics=statistics_from_json(read_json(folder, "statistics.json")),
            features=features_from(features),
            annotations=fold["annotations"],
            labels_sha256=fold["labels_sha256"],
            labels=fold.get("labels", {}),
            extra=fold.get("extra", {}),
        )
        widths = {name: len(described.statistics[name].mean) for name in described.config.modalities}
        seen = {name: shape[0] for name, shape in described.features.shapes.items()}
        if widths != seen:
            raise ValueError(f"statistics of widths {widths} for features of widths {seen}")
        return described
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} does not hold a run that this avfuse can read: {error}") from error


def environment(data: Dataset, run: RunConfig, command: str) -> dict[str, JsonValue]:
    """What environment.json records of the last call that trained the run."""
    device = data.labels.device
    return {
        "command": command,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "precision": run.precision,
        "compiled": run.compile,
        "threads": torch.get_num_threads(),
        "features_at": data.place,
        "versions": {name: version(name) for name in _PACKAGES},
    }


@contextmanager
def run_lock(folder: Path) -> Iterator[bool]:
    """True for the one process that may train in `folder` now; False, at once, for the others.

    Makes the folder. Raises OSError if it cannot be written. While the lock is held, every write to the folder raises
    ClaimLost once another process has taken it over.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            mine = stack.enter_context(claim(folder, "run"))
        except OSError as error:
            # The error names a file of the run, which users know, in place of the claim's.
            path = str(folder / "fold.json")
            raise type(error)(error.errno, error.strerror or str(error), path) from error
        yield mine


def is_locked(folder: Path) -> bool:
    """Whether a living process, perhaps this one, trains in a folder now."""
    found = [look(path) for path in sorted((folder / CLAIMS).glob("*.json"))]
    return any(seen is not None and not seen.is_stale(TTL_S) for seen in found)


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """The object in a JSON file of a run. Raises ValueError naming the file if it is missing or not an object."""
    path = folder / name
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder} does not hold a run: there is no {name}; name a folder that `avfuse train` made"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is not a JSON object")
    return found
