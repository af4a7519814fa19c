"""A planted corpus, a run that has learned from its videos in seconds, and a folder of videos to predict."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from avfuse.pipeline.synth.corpus import make_corpus
from avfuse.pipeline.synth.planning import SynthConfig

FEATURES = "fake_face,fake_sound"  # means of pixels and bands: no weights, no time


@dataclass(frozen=True)
class PlantedRun:
    """A run, the store that it was trained on, and the videos of its corpus."""

    run: Path
    store: Path
    annotations: Path
    videos: Path


@pytest.fixture(scope="session")
def train_planted(avfuse) -> Callable[..., None]:
    """Train a small head on a planted store, for two epochs."""
    settings = ["lead_channels=8,8", "other_channels=8,8", "attention_width=8", "heads=2", "hidden=8"]
    settings += ["window_frames=30", "hop_frames=20", "warmup_epochs=1"]

    def train(planted: PlantedRun, out: Path, *more: object) -> None:
        given = ("train", "--fold", 0, "--store", planted.store, "--annotations", planted.annotations, "--out", out)
        pairs = [word for pair in settings for word in ("--set", pair)]
        words = ("--modalities", FEATURES, "--epochs", 2, "--device", "cpu", "--no-plots", "--no-tensorboard")
        result = avfuse(*given, *words, *pairs, *more)
        assert result.exit_code == 0, result.stderr

    return train


@pytest.fixture(scope="session")
def planted(tmp_path_factory, avfuse, train_planted) -> PlantedRun:
    """Six short trials, extracted with settings that are not the default ones."""
    folder = tmp_path_factory.mktemp("planted")
    make_corpus(folder / "corpus", SynthConfig(trials=6, seconds=1.5))
    made = PlantedRun(
        folder / "run", folder / "features.zarr", folder / "corpus" / "annotations", folder / "corpus" / "videos"
    )
    words = ("--features", FEATURES, "--audio-align", "center", "--detect-every", 20, "--device", "cpu")
    extract = ("extract", "--videos", made.videos, "--annotations", made.annotations, "--store", made.store)
    result = avfuse(*extract, *words)
    assert result.exit_code == 0, result.stderr
    train_planted(made, made.run)
    return made


@pytest.fixture
def videos(planted, tmp_path) -> Path:
    """Two of the corpus' videos under other names, one in a folder, and a file that is none."""
    found = sorted(path for path in planted.videos.rglob("*") if path.is_file())
    folder = tmp_path / "videos"
    (folder / "sub").mkdir(parents=True)
    shutil.copy(found[0], folder / f"one{found[0].suffix}")
    shutil.copy(found[1], folder / "sub" / f"two{found[1].suffix}")
    (folder / "bad.mp4").write_bytes(b"no video" * 100)
    return folder


@pytest.fixture
def run_videos(avfuse) -> Callable[..., object]:
    """`avfuse run`, on the CPU."""
    return lambda videos, model, out, *more: avfuse(
        "run", "--videos", videos, "--model", model, "--out", out, "--device", "cpu", *more
    )
