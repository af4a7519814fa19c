"""A planted feature store: what valence and arousal are made of is known."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from avfuse.features_store.store import FeatureStore
from avfuse.fusion.data.dataset import Dataset, load
from avfuse.fusion.data.matching import TrialSource
from avfuse.fusion.data.runtime import Room

RATE_HZ = 25
MODALITIES = ("iresnet50", "vggish", "logmel_vgg")


@dataclass(frozen=True)
class Planted:
    """A store, its labels in the Aff-Wild2 layout, and the part of the labels that only both modalities tell."""

    store: Path
    annotations: Path
    joint: dict[str, np.ndarray]


def signals(rng, count: int, time_s: np.ndarray, slowest_hz: float, fastest_hz: float) -> np.ndarray:
    """Smooth signals [T, count] of unit variance: sums of ten waves."""
    waves = 10
    frequency_hz = rng.uniform(slowest_hz, fastest_hz, (count, waves))
    phase = rng.uniform(0, 2 * np.pi, (count, waves))
    return np.sin(2 * np.pi * frequency_hz * time_s[:, None, None] + phase).sum(-1) * np.sqrt(2 / waves)


def context_law(rng, time_s):
    """The face moves, and the voice tells slowly what a movement means: latents of face and voice, own and joint part.

    valence = own movement + movement₁ · meaning₁          arousal = own tone of voice + movement₂ · meaning₂
    """
    own, first, second, *shared = signals(rng, 7, time_s, 0.05, 0.5).T
    tone, *meanings = signals(rng, 3, time_s, 0.005, 0.02).T
    meanings = [np.tanh(2 * meaning) for meaning in meanings]
    joint = 0.3 * np.stack([first * meanings[0], second * meanings[1]], 1)
    return [own, first, second, *shared], [tone, *meanings, *shared], 0.25 * np.stack([own, tone], 1), joint


def lag_law(rng, time_s, lag=8):
    """The face shows the joint part spoiled by noise twice as large, which the voice tells `lag` rows ahead.

    valence = own movement + joint₁          arousal = own tone of voice + joint₂
    """
    all_s = np.append(time_s, time_s[-1] + np.arange(1, lag + 1) / RATE_HZ)
    waves = signals(rng, 6, all_s, 0.05, 0.5)
    (own, tone, *joint), noise, coming = waves[:-lag, :4].T, waves[:-lag, 4:], waves[lag:, 4:]
    face = [own, *(np.stack(joint, 1) + 2 * noise).T]
    return face, [tone, *coming.T], 0.25 * np.stack([own, tone], 1), 0.25 * np.stack(joint, 1)


LAWS = {"context": context_law, "lag": lag_law}


def plant(
    folder: Path, law="context", trials=40, rows=(900, 1200), widths=(128, 64, 64), seed=0, shuffled=False
) -> Planted:
    """A store of features: latents mixed into `widths` numbers a modality, a subject's own offset, correlated noise.

    A quarter of the noise is common to all modalities of a row, the rest each number's own. No subject is in two
    trials. `shuffled` gives each trial another trial's labels.
    """
    rng = np.random.default_rng(seed)
    store = FeatureStore(folder / "features.zarr", mode="a")
    labels, joint = {}, {}
    mixing: dict[str, np.ndarray] = {}
    for number in range(trials):
        name = f"trial{number:03d}"
        time_s = np.arange(int(rng.integers(*rows))) / RATE_HZ
        face, voice, own, joint[name] = LAWS[law](rng, time_s)
        labels[name] = (own + joint[name]).clip(-1, 1)
        common = rng.standard_normal((len(time_s), 4))
        arrays = {"time": time_s}
        for feature, latents, width in zip(MODALITIES, (face, voice, voice), widths, strict=True):
            seen = np.concatenate([np.stack(latents, 1), 0.5 * common], 1)
            mix = mixing.setdefault(feature, rng.standard_normal((seen.shape[1], width)))
            noise = 0.5 * rng.standard_normal(width) + rng.standard_normal((len(time_s), width))
            arrays[feature] = (seen @ mix + noise).astype(np.float32)
            arrays[f"{feature}_valid"] = np.ones(len(time_s), bool)
        store.write(name, arrays, {"fingerprint": "planted"})
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


@pytest.fixture
def make_store(tmp_path) -> Callable[..., FeatureStore]:
    """A store of {trial: {feature: rows}}; each feature gets its `_valid`, all true, unless it is among them."""

    def make(trials: dict[str, dict[str, np.ndarray]]) -> FeatureStore:
        store = FeatureStore(tmp_path / "small.zarr", mode="a")
        for name, features in trials.items():
            count = len(next(iter(features.values())))
            flags = {f"{feature}_valid": np.ones(count, bool) for feature in features if not feature.endswith("_valid")}
            store.write(name, {"time": np.arange(count) / RATE_HZ, **flags, **features}, {"fingerprint": "small"})
        return store

    return make


@pytest.fixture
def make_data(make_store) -> Callable[..., Dataset]:
    """A data set of {trial: {feature: rows}}, in memory or streamed from its store.

    `labels` {trial: [T, 2]}: −5 masks a row; of trials that are not named they are drawn.
    """

    def make(
        trials: dict[str, dict[str, np.ndarray]],
        labels: dict[str, np.ndarray] | None = None,
        streamed: bool = False,
        store: FeatureStore | None = None,
    ) -> Dataset:
        rng = np.random.default_rng(0)
        sources = {}
        for name, features in trials.items():
            drawn = rng.uniform(-1, 1, (len(next(iter(features.values()))), 2))
            values = np.asarray((labels or {}).get(name, drawn), np.float32)
            sources[name] = TrialSource(name, name, values, (values != -5).all(axis=1))
        modalities = [name for name in next(iter(trials.values())) if not name.endswith("_valid")]
        room = Room(torch.device("cpu"), 0, 0) if streamed else Room(torch.device("cpu"), 1 << 40, 1 << 40)
        return load(store or make_store(trials), sources, modalities, room)

    return make


@pytest.fixture(scope="session")
def small(tmp_path_factory, plant_small):
    """A small corpus; not to be changed."""
    return plant_small(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory, small, fit) -> Path:
    """A run of three epochs on fold 0 of `small`, with all its pictures; not to be changed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    fit(small, folder, "--plots", "--tensorboard")
    return folder


@pytest.fixture(scope="session")
def grid(tmp_path_factory, small, fit) -> Path:
    """Two seeds of all six folds of `small`, two epochs each; not to be changed."""
    folder = tmp_path_factory.mktemp("grid") / "runs"
    fit(small, folder, "--fold", "all", "--seeds", 2, "--epochs", 2)
    return folder


@pytest.fixture(scope="session")
def plain_ccc() -> Callable[..., float]:
    """CCC as Lin wrote it, of two sequences."""

    def ccc(x: np.ndarray, y: np.ndarray) -> float:
        return 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)

    return ccc
