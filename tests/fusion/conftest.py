"""A planted feature store: what valence and arousal are made of is known."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from avfuse.features_store.store import FeatureStore

RATE_HZ = 25


@dataclass(frozen=True)
class Planted:
    """A store, its labels in the Aff-Wild2 layout, and the part of the labels that only both modalities tell."""

    store: Path
    annotations: Path
    joint: dict[str, np.ndarray]


def signals(rng, count: int, time_s: np.ndarray) -> np.ndarray:
    """Smooth signals [T, count] of unit variance: sums of ten waves of 0.05 to 0.5 Hz."""
    waves = 10
    frequency_hz = rng.uniform(0.05, 0.5, (count, waves))
    phase = rng.uniform(0, 2 * np.pi, (count, waves))
    return np.sin(2 * np.pi * frequency_hz * time_s[:, None, None] + phase).sum(-1) * np.sqrt(2 / waves)


def plant(folder: Path, trials=40, rows=(450, 750), lag=8, seed=0, shuffled=False) -> Planted:
    """Valence moves the face, arousal the voice; of each a part is spoiled, in the face, by what the voice tells.

    face  [T, 512]  own valence, joint valence + 2 noise, joint arousal + 2 noise'        + a subject's own offset
    voice [T, 128]  own arousal, noise `lag` rows ahead, noise' `lag` rows ahead          + a subject's own offset
    """
    rng = np.random.default_rng(seed)
    to_face, to_voice = rng.standard_normal((3, 512)), [rng.standard_normal((3, 128)) for _ in range(2)]
    store = FeatureStore(folder / "features.zarr", mode="a")
    labels, joint = {}, {}
    for number in range(trials):
        name = f"trial{number:03d}"
        count = int(rng.integers(*rows))
        time_s = np.arange(count + lag) / RATE_HZ
        s = signals(rng, 6, time_s)
        now, ahead = s[:count], s[lag:]
        face = np.stack([now[:, 0], now[:, 2] + 2 * now[:, 4], now[:, 3] + 2 * now[:, 5]], 1) @ to_face
        voices = [np.stack([now[:, 1], ahead[:, 4], ahead[:, 5]], 1) @ to for to in to_voice]
        arrays = {"time": time_s[:count]}
        for feature, rows_of in zip(("iresnet50", "vggish", "logmel_vgg"), (face, *voices), strict=True):
            subject = rng.standard_normal(rows_of.shape[1])
            noise = rng.standard_normal(rows_of.shape)
            arrays[feature] = (rows_of + 0.5 * subject + noise).astype(np.float32)
            arrays[f"{feature}_valid"] = np.ones(count, bool)
        store.write(name, arrays, {"fingerprint": "planted"})
        joint[name] = 0.25 * now[:, 2:4]
        labels[name] = 0.25 * now[:, :2] + joint[name]
    write_annotations(folder / "annotations", labels, rng if shuffled else None)
    return Planted(folder / "features.zarr", folder / "annotations", joint)


def write_annotations(folder: Path, labels: dict[str, np.ndarray], shuffle=None) -> None:
    """Three quarters of the trials to train, the rest to validation; labels of another trial when shuffled."""
    names = list(labels)
    donors = names if shuffle is None else [names[i] for i in shuffle.permutation(len(names))]
    for number, (name, donor) in enumerate(zip(names, donors, strict=True)):
        part = "Validation_Set" if number % 4 == 3 else "Train_Set"
        rows = np.resize(labels[donor], labels[name].shape).clip(-1, 1)
        path = folder / "VA_Estimation_Challenge" / part / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("valence,arousal\n" + "".join(f"{v:.6f},{a:.6f}\n" for v, a in rows))


@pytest.fixture(scope="session")
def make_planted(tmp_path_factory) -> Callable[..., Planted]:
    """Plant a store with these settings."""
    return lambda **settings: plant(tmp_path_factory.mktemp("planted"), **settings)
