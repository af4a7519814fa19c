"""A run's folder: what the run is, its best network, and the state from which it can go on.

    config.json  fold.json  features.json  statistics.json  environment.json     written once, at the start
    training.pt                              the state after the last epoch: replaced at once, the only one that counts
    model.safetensors  history.csv  metrics.json               for people and programs: made from that state
    finished.json                                              the run has ended by itself

Tested by tests/fusion/test_checkpoint.py and tests/faults/test_train_kill.py.
"""

from __future__ import annotations

import csv
import io
import json
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ..features_store.disk import replace_file
from .config import TrainConfig
from .manifest import Fold
from .settings import as_json, from_json
from .statistics import Statistics
from .statistics import as_json as statistics_json
from .statistics import from_json as statistics_from_json

FORMAT = 1
HISTORY = ("epoch", "lr", "loss", "P", "ccc_valence", "ccc_arousal", "seconds")
_RUNNING = ("lr", "loss", "seconds")  # of the history only
_EARLY = ("tensorboard", "fold.json", "features.json", "statistics.json", "environment.json")
_TEMPORARY = re.compile(r"\.\d+\.[0-9a-f]{12}")


@dataclass(frozen=True)
class Features:
    """Which features a run has seen: the store, {fingerprint: trials}, untrained ones, widths by modality."""

    store: str
    fingerprints: Mapping[str, int]
    untrained: tuple[str, ...]
    widths: Mapping[str, int]


@dataclass(frozen=True)
class Description:
    """What a run is: settings, fold, statistics, features, where its labels came from and their sha256."""

    config: TrainConfig
    fold: Fold
    statistics: Mapping[str, Statistics]
    features: Features
    annotations: str
    labels_sha256: str


@dataclass
class State:
    """Where a run stands after `len(history)` epochs; tensors on any device."""

    history: list[dict[str, Any]]
    model: dict[str, Tensor]
    best: dict[str, Tensor]
    optimizer: dict[str, Any]
    plateau: dict[str, Any]
    scaler: dict[str, Any]


def is_empty(folder: Path) -> bool:
    """Whether a run may begin here: there is nothing, or what one has left that ended before config.json."""
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    return "config.json" not in found and all(name in _EARLY or _TEMPORARY.fullmatch(name) for name in found)


def write_description(folder: Path, described: Description, environment: Mapping[str, Any]) -> None:
    """Make the folder and write what does not change during the run; leftovers of a killed one go."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.rglob(".*"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink()
    _write_json(folder / "fold.json", {**asdict(described.fold), **_labels(described)})
    _write_json(folder / "features.json", asdict(described.features))
    _write_json(folder / "statistics.json", statistics_json(described.statistics))
    _write_json(folder / "environment.json", environment)
    _write_json(folder / "config.json", {"avfuse_run": FORMAT, **as_json(described.config)})


def read_description(folder: Path) -> Description:
    """What the run in a folder is. Raises ValueError where the folder holds none that this avfuse can read."""
    config = _read_json(folder, "config.json")
    found = config.pop("avfuse_run", None)
    if found != FORMAT:
        raise ValueError(f"{folder / 'config.json'}: format {found}, this avfuse reads {FORMAT}")
    fold = _read_json(folder, "fold.json")
    features = _read_json(folder, "features.json")
    try:
        described = Description(
            config=from_json(config),
            fold=Fold(fold["number"], tuple(fold["train"]), tuple(fold["validation"])),
            statistics=statistics_from_json(_read_json(folder, "statistics.json")),
            features=Features(**{**features, "untrained": tuple(features["untrained"])}),
            annotations=fold["annotations"],
            labels_sha256=fold["labels_sha256"],
        )
        widths = {name: len(described.statistics[name].mean) for name in described.config.modalities}
        if widths != described.features.widths:
            raise ValueError(f"statistics of widths {widths} for features of widths {described.features.widths}")
        return described
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} holds no run that this avfuse can read: {error}") from error


def _labels(described: Description) -> dict[str, str]:
    return {"annotations": described.annotations, "labels_sha256": described.labels_sha256}


def save_state(folder: Path, state: State) -> None:
    """Replace the state at once: whatever happens, the last one or this one is there. Raises OSError."""
    content = io.BytesIO()
    torch.save(asdict(state), content)
    replace_file(folder / "training.pt", content.getvalue())


def has_state(folder: Path) -> bool:
    """Whether a run has learned anything yet."""
    return (folder / "training.pt").is_file()


def load_state(folder: Path) -> State | None:
    """The state of a run on the CPU; None where none was saved yet. Raises ValueError on a broken file."""
    path = folder / "training.pt"
    if not path.is_file():
        return None
    try:
        _check_sums(path)
        return State(**torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, TypeError, ValueError, LookupError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is broken ({error}); remove the folder {folder} and train again") from error


def _check_sums(path: Path) -> None:
    """Raise ValueError unless a file of torch.save is whole: torch itself does not look at its checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except zipfile.BadZipFile as error:
        raise ValueError(f"it is not whole, or no file of torch.save: {error}") from error
    if broken is not None:
        raise ValueError(f"the checksum of {broken} is wrong")


def write_results(
    folder: Path, history: Sequence[Mapping[str, Any]], best: Mapping[str, Tensor], best_row: Mapping[str, Any]
) -> None:
    """What people and programs read: history.csv, and the best network with its scores where it is another one."""
    replace_file(folder / "history.csv", _history_csv(history))
    metrics = folder / "metrics.json"
    if not metrics.is_file() or _read_json(folder, metrics.name).get("epoch") != best_row["epoch"]:
        tensors = {name: value.detach().cpu().contiguous() for name, value in best.items()}
        replace_file(folder / "model.safetensors", safetensors.torch.save(tensors))
        _write_json(metrics, {key: best_row[key] for key in best_row if key not in _RUNNING})


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Tensors of the best network. Raises ValueError on a missing or broken file."""
    path = folder / "model.safetensors"
    try:
        return safetensors.torch.load(path.read_bytes())
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing: the run in {folder} has not finished an epoch") from error
    except (safetensors.SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is broken: {error}") from error


def read_metrics(folder: Path) -> dict[str, Any]:
    """metrics.json of a run. Raises ValueError where it is missing or broken."""
    found = _read_json(folder, "metrics.json")
    if lacking := {"epoch", "P", "ccc_valence", "ccc_arousal"} - set(found):
        raise ValueError(f"{folder / 'metrics.json'} has no {', '.join(sorted(lacking))}")
    return found


def is_finished(folder: Path) -> bool:
    """Whether the run in a folder has ended by itself."""
    return (folder / "finished.json").is_file()


def write_finished(folder: Path, reason: str, epochs: int) -> None:
    """Mark a run as ended."""
    _write_json(folder / "finished.json", {"reason": reason, "epochs": epochs})


def epochs_done(folder: Path) -> int:
    """Epochs of a finished run."""
    return int(_read_json(folder, "finished.json")["epochs"])


def unmark_finished(folder: Path) -> None:
    """A run that goes on has not ended."""
    (folder / "finished.json").unlink(missing_ok=True)


def _history_csv(history: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, HISTORY, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue().encode()


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    replace_file(path, (json.dumps(content, indent=1) + "\n").encode())


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder} holds no run: there is no {name}; name a folder that `avfuse train` made"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no JSON object")
    return found
