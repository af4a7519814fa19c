"""A planted corpus, a run that has learned from its videos in seconds, and a folder of videos to predict."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import Result

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
    make_corpus(folder / "corpus", SynthConfig(trials=6, seconds=1.2))
    made = PlantedRun(
        folder / "run", folder / "features.zarr", folder / "corpus" / "annotations", folder / "corpus" / "videos"
    )
    words = ("--features", FEATURES, "--audio-align", "center", "--detect-every", 20, "--device", "cpu")
    extract = ("extract", "--videos", made.videos, "--annotations", made.annotations, "--store", made.store)
    result = avfuse(*extract, *words)
    assert result.exit_code == 0, result.stderr
    train_planted(made, made.run)
    return made


@dataclass(frozen=True)
class Called:
    """Two of the corpus' videos under other names, one in a folder, and a file that is none; a call on them."""

    videos: Path
    out: Path
    result: Result


@pytest.fixture(scope="session")
def first_call(planted, run_videos, tmp_path_factory) -> Called:
    """The first call, without pictures; not to be changed."""
    found = sorted(path for path in planted.videos.rglob("*") if path.is_file())
    folder = tmp_path_factory.mktemp("first")
    (folder / "videos" / "sub").mkdir(parents=True)
    shutil.copy(found[0], folder / "videos" / f"one{found[0].suffix}")
    shutil.copy(found[1], folder / "videos" / "sub" / f"two{found[1].suffix}")
    (folder / "videos" / "bad.mp4").write_bytes(b"no video" * 100)
    result = run_videos(folder / "videos", planted.run, folder / "out", "--no-plots")
    return Called(folder / "videos", folder / "out", result)


@pytest.fixture
def videos(first_call, tmp_path) -> Path:
    """A copy of the videos."""
    return shutil.copytree(first_call.videos, tmp_path / "videos")


@pytest.fixture
def out(first_call, videos, tmp_path) -> Path:
    """A copy of what the first call has made of them."""
    return shutil.copytree(first_call.out, tmp_path / "out")


@pytest.fixture(scope="session")
def run_videos(avfuse) -> Callable[..., Result]:
    """`avfuse run`, on the CPU."""
    return lambda videos, model, out, *more: avfuse(
        "run", "--videos", videos, "--model", model, "--out", out, "--device", "cpu", *more
    )
