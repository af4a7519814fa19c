"""A planted store whose trials have valence and arousal, expressions and action units, side by side in one tree."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from avfuse.features_store.labels.kinds import KINDS
from avfuse.features_store.store import FeatureStore

RATE_HZ = 25


@dataclass(frozen=True)
class Planted:
    """A store of the features `face` and `voice`, and labels of every kind in the Aff-Wild2 layout."""

    store: Path
    annotations: Path


def plant(folder: Path, shuffled: bool = False, trials: int = 20) -> Planted:
    """Three smooth signals, two in the face and one in the voice, tell everything:

    expression = their signs, as three bits      unit k is there if the signals reach far enough in direction k

    Some labels are masked: whole rows, and of one trial single units. `shuffled`: another trial's labels.
    """
    rng = np.random.default_rng(5)
    store = FeatureStore(folder / "features.zarr", mode="a")
    to_face, to_voice, directions = (rng.standard_normal(shape) for shape in ((2, 12), (1, 8), (3, 12)))
    directions /= np.linalg.norm(directions, axis=0)
    labels: dict[str, dict[str, np.ndarray]] = {}
    for number in range(trials):
        time_s = np.arange(int(rng.integers(240, 300))) / RATE_HZ
        frequency_hz, phase = rng.uniform(0.1, 0.6, (3, 6)), rng.uniform(0, 2 * np.pi, (3, 6))
        seen = np.sin(2 * np.pi * frequency_hz * time_s[:, None, None] + phase).sum(-1) / np.sqrt(3)
        arrays = {"time": time_s}
        for name, rows in (("face", seen[:, :2] @ to_face), ("voice", seen[:, 2:] @ to_voice)):
            arrays[name] = (rows + 0.3 * rng.standard_normal(rows.shape)).astype(np.float32)
            arrays[f"{name}_valid"] = np.ones(len(rows), bool)
        store.write(f"clip{number}", arrays, {"fingerprint": "planted"})
        own = labels[f"clip{number}"] = {
            "VA": (0.4 * seen[:, :2]).clip(-1, 1),
            "EXPR": ((seen > 0) @ [1, 2, 4])[:, None],
            "AU": (seen @ directions > 0.3).astype(int),
        }
        for kind, rows in own.items():
            rows[5 + number : 12 + number] = KINDS[kind].masked
        if number == 1:
            own["AU"][30:60, ::2] = -1
    names = list(labels)
    donors = [names[at] for at in rng.permutation(trials)] if shuffled else names
    for number, (name, donor) in enumerate(zip(names, donors, strict=True)):
        for kind, rows in labels[donor].items():
            part = "Validation_Set" if number % 4 == 3 else "Train_Set"
            path = folder / "annotations" / "6th ABAW Annotations" / KINDS[kind].folder / part / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            fitted = rows[np.arange(len(labels[name][kind])) % len(rows)]
            lines = [",".join(f"{value:g}" for value in row) for row in fitted.tolist()]
            path.write_text("\n".join([KINDS[kind].header, *lines, ""]))
    return Planted(folder / "features.zarr", folder / "annotations")


@pytest.fixture(scope="session")
def planted(tmp_path_factory) -> Planted:
    """The planted corpus; not to be changed."""
    return plant(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="session")
def learn(avfuse) -> Callable[..., Path]:
    """Train a linear layer on a planted corpus; returns the run."""
    settings = {
        "statistics": "feature", "window_frames": 60, "hop_frames": 40, "lr": 0.03, "warmup_epochs": 1,
        "weight_decay": 0,
    }  # fmt: skip

    def run(corpus, out: Path, *more) -> Path:
        words = ["--store", corpus.store, "--annotations", corpus.annotations, "--out", out, "--fold", 0]
        words += ["--preset", "concat", "--modalities", "face,voice", "--device", "cpu", "--no-tensorboard"]
        words += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        result = avfuse("train", *words, *more)
        assert result.exit_code == 0, result.stderr
        return out

    return run


@pytest.fixture(scope="session")
def shuffled(tmp_path_factory) -> Planted:
    """The planted corpus with the labels of other trials."""
    return plant(tmp_path_factory.mktemp("shuffled"), shuffled=True)


@pytest.fixture(scope="session")
def learned(planted, learn, tmp_path_factory) -> dict[str, Path]:
    """A run of expressions and one of action units, with their pictures; not to be changed."""
    folder = tmp_path_factory.mktemp("learned")
    return {task: learn(planted, folder / task, "--task", task, "--epochs", 8) for task in ("expr", "au")}
