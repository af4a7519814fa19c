"""The examples run and print what they say."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from avfuse.features_store.store import FeatureStore

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


@pytest.fixture
def start(monkeypatch, capsys):
    """Run an example in this process, where torch is loaded once; returns what it prints."""

    def run(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        capsys.readouterr()
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, make_clip):
    """Two clips of a second in the layout of a planted corpus, with sound and without faces."""
    folder = tmp_path_factory.mktemp("corpus")
    samples = np.sin(np.arange(16_000) * 0.1)
    for name, part in (("one", "Train_Set"), ("two", "Validation_Set")):
        clip = make_clip(f"{name}.mp4", np.zeros((25, 64, 64, 3), np.uint8), samples=samples, rate_hz=16_000)
        for path in (folder / "videos", folder / "cropped_aligned" / name):
            path.mkdir(parents=True, exist_ok=True)
        clip.rename(folder / "videos" / clip.name)
        labels = folder / "annotations" / "VA_Estimation_Challenge" / part / f"{name}.txt"
        labels.parent.mkdir(parents=True)
        labels.write_text("valence,arousal\n" + "0.1,0.2\n" * 25)
    return folder


def test_extract_and_read(start, corpus, tmp_path):
    printed = start("extract_and_read", corpus, tmp_path / "features.zarr")
    assert FeatureStore(tmp_path / "features.zarr")["two"]["mfcc"].shape == (25, 39)
    assert "two: 25 rows" in printed
    assert "one, by plain zarr: (25, 39) float32, the same rows" in printed


def test_train_preset(start, plant_small, tmp_path):
    small = plant_small(tmp_path)
    printed = start("train_preset", small.store, small.annotations, tmp_path / "run", "--modalities=face,voice")
    assert (tmp_path / "run" / "model.safetensors").is_file()
    score = re.search(r"CCC of valence (-?\d\.\d+)", printed)
    assert score is not None
    assert float(score[1]) > 0.1
    assert "clip3: 115 frames" in printed


def test_own_network(start, plant_small, tmp_path):
    small = plant_small(tmp_path)
    printed = start("own_network", small.store, small.annotations, "--feature", "face", "--epochs", 10)
    losses = [float(loss) for loss in re.findall(r"loss (\d\.\d+)", printed)]
    assert len(losses) == 10
    assert losses[-1] < losses[0]
    # clip3 has ten masked rows of 115, clip7 135.
    score = re.search(r"CCC of valence over 240 held-out frames: (-?\d\.\d+)", printed)
    assert score is not None
    assert float(score[1]) > 0.1


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_own_loop(start, plant_small, tmp_path, workers):
    small = plant_small(tmp_path)
    words = (small.store, small.annotations, "--features", "face,voice", "--epochs", 10, "--workers", workers)
    printed = start("own_loop", *words)
    assert "Train_Set: 17 windows of 6 trials" in printed
    losses = [float(loss) for loss in re.findall(r"loss (\d\.\d+)", printed)]
    assert losses[-1] < losses[0]
    score = re.search(r"CCC of valence in held-out windows: (-?\d\.\d+)", printed)
    assert score is not None
    assert float(score[1]) > 0.1


def test_look_at_a_store(start, plant_small, tmp_path):
    printed = start("look_at_a_store", plant_small(tmp_path).store, "--feature", "face")
    assert "clip0: 100 frames, 100% of face valid, 3.96 s" in printed
    assert "means of face by the second: 4 × 6" in printed
    assert re.search(r"by xarray: \{'frame': 100, 'feature_face': 6\}, spread \d\.\d+", printed)


def test_every_example_is_described_and_tested():
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    described = set(re.findall(r"^\| `(\w+)\.py`", (EXAMPLES / "README.md").read_text(), re.MULTILINE))
    assert names == described
    assert names == set(re.findall(r'start\(\s*"(\w+)"', Path(__file__).read_text()))
