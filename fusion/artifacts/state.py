"""Where a run stands: the state from which it can go on, and what is made from it.

    training.pt                                                the state after the last epoch: all else follows from it
    model.safetensors  history.csv  metrics.json               for people and programs: made from that state
    finished.json                                              the run has ended by itself

Tested by tests/fusion/artifacts/test_state.py and tests/faults/test_train_kill.py.
"""

from __future__ import annotations

import csv
import io
import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ...features_store.disk.atomic import remove_file, remove_tree, replace_file, write_json
from .folder import read_json

TRAINING = "training.pt"
FINISHED = "finished.json"
TIMM = "timm"  # below it the folders of tuned networks of timm
RUNNING = ("lr", "backbone_lr", "loss", "seconds")  # of the history only


@dataclass
class State:
    """Where a run stands after `len(history)` epochs; weights by name, on any device.

    `model`: those that training goes on from; `best`: those of the best epoch.
    """

    history: list[dict[str, Any]]
    model: dict[str, Tensor]
    best: dict[str, Tensor]
    optimizer: dict[str, Any]
    plateau: dict[str, Any]
    scaler: dict[str, Any]


def save_state(folder: Path, state: State) -> None:
    """Replace the state at once: whatever happens, the last one or this one is there. Raises OSError."""
    content = io.BytesIO()
    torch.save(vars(state), content)  # asdict would copy every tensor
    replace_file(folder / TRAINING, content.getvalue())


def load_state(folder: Path) -> State | None:
    """The state of a run on the CPU; None if none was saved yet. Raises ValueError on a broken file."""
    path = folder / TRAINING
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as archive:  # torch itself does not check the checksums
            if (wrong := archive.testzip()) is not None:
                raise ValueError(f"the checksum of {wrong} is wrong")
        return State(**torch.load(path, map_location="cpu", weights_only=True))
    except (
        *(zipfile.BadZipFile, zlib.error, EOFError),  # incomplete, or not written by torch.save
        *(RuntimeError, TypeError, ValueError, LookupError, pickle.UnpicklingError),  # holds something else
    ) as error:
        raise ValueError(f"{path} is broken ({error}); remove the folder {folder} and train again") from error


def save_network(folder: Path, best: Mapping[str, Tensor]) -> None:
    """Replace model.safetensors by the weights `best`. Raises OSError."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in best.items()}
    replace_file(folder / "model.safetensors", safetensors.torch.save(tensors))


def write_results(
    folder: Path,
    history: Sequence[Mapping[str, Any]],
    best_row: Mapping[str, Any],
    write_networks: Callable[[], object],
) -> None:
    """What people and programs read: history.csv, and the best network with its scores if it is another one now."""
    columns = [key for key in history[-1] if not key.startswith("mean_trial_") and key not in ("frames", "trials")]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    replace_file(folder / "history.csv", text.getvalue().encode())
    metrics = folder / "metrics.json"
    if not metrics.is_file() or read_json(folder, metrics.name).get("epoch") != best_row["epoch"]:
        write_networks()
        write_json(metrics, {key: best_row[key] for key in best_row if key not in RUNNING})


def clear_results(folder: Path) -> None:
    """Remove what an earlier run left in a folder where one begins: nothing of the old one stands beside the new."""
    networks = ["model.safetensors", *(path.name for path in folder.glob("*.safetensors"))]
    for name in (FINISHED, TRAINING, "metrics.json", *networks, "history.csv"):
        remove_file(folder / name)
    for name in ("predictions", "plots", "tensorboard", TIMM):
        remove_tree(folder / name)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Weights of the best network. Raises ValueError on a missing or broken file."""
    path = folder / "model.safetensors"
    try:
        return safetensors.torch.load(path.read_bytes())
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing: the run in {folder} has not finished an epoch") from error
    except (safetensors.SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is broken: {error}") from error


def read_metrics(folder: Path, scores: Iterable[str] = ()) -> dict[str, Any]:
    """metrics.json of a run. Raises ValueError if it is missing or broken, or has none of these scores."""
    found = read_json(folder, "metrics.json")
    if lacking := {"epoch", "P", *scores} - set(found):
        raise ValueError(f"{folder / 'metrics.json'} has no {', '.join(sorted(lacking))}")
    return found


def is_finished(folder: Path) -> bool:
    """Whether the run in a folder has ended by itself."""
    return (folder / FINISHED).is_file()
