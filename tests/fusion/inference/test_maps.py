"""A head that takes maps, from the command line to the predictions; and one that does not."""

import json

import numpy as np
import pytest

from avfuse.fusion.artifacts.folder import read_description

SETTINGS = {
    "lead_channels": "8,8",
    "other_channels": "8,8",
    "layers": 1,
    "heads": 2,
    "feed_forward": 8,
    "hidden": 8,
    "window_frames": 60,
    "hop_frames": 40,
    "lr": 0.003,
    "statistics": "feature",
}


@pytest.fixture(scope="module")
def corpus(plant_small, tmp_path_factory):
    """Small trials with the face also as a map of 2 x 3 places, which show it with noise."""
    small = plant_small(tmp_path_factory.mktemp("maps"))
    rng = np.random.default_rng(0)
    for number in range(8):
        face = small.rows(f"clip{number}")["face"]
        maps = face[:, :, None, None] + 0.3 * rng.standard_normal((*face.shape, 2, 3))
        flags = np.ones(len(face), bool)
        small.rewrite(f"clip{number}", face_map=maps.astype(np.float16), face_map_valid=flags)
    return small


@pytest.fixture(scope="module")
def words(corpus):
    def make(out, preset, *more):
        given = ("train", "--store", corpus.store, "--annotations", corpus.annotations, "--out", out, "--fold", 0)
        pairs = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
        settings = pairs if preset == "tcn-transformer" else []
        small = ("--task", "va", "--modalities", "face_map,voice", "--device", "cpu", "--no-plots", "--no-tensorboard")
        return (*given, "--preset", preset, *small, *settings, *more)

    return make


@pytest.fixture(scope="module")
def run(avfuse, words, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    result = avfuse(*words(out, "tcn-transformer", "--epochs", 2))
    assert result.exit_code == 0, result.stderr
    assert "face_map 6×2×3, voice 4" in result.stderr
    return out


def test_a_run_knows_the_shapes_of_its_rows(run):
    assert json.loads((run / "features.json").read_text())["widths"] == {"face_map": [6, 2, 3], "voice": 4}
    described = read_description(run)
    assert described.features.shapes == {"face_map": (6, 2, 3), "voice": (4,)}
    assert described.statistics["face_map"].mean.shape == (6,)


def test_it_is_evaluated_as_it_was_scored(run, corpus, avfuse):
    result = avfuse("evaluate", "--run", run, "--json")
    assert result.exit_code == 0, result.stderr
    scored = json.loads((run / "metrics.json").read_text())
    assert json.loads(result.stdout)["P"] == pytest.approx(scored["P"], abs=1e-6)


def test_streamed_it_is_the_same_run(run, words, avfuse, same_run, tmp_path):
    result = avfuse(*words(tmp_path / "run", "tcn-transformer", "--epochs", 2, "--memory-gb", 0))
    assert "streamed from the store" in result.stderr
    same_run(run, tmp_path / "run")


def test_it_goes_on(run, words, avfuse, same_run, tmp_path):
    assert avfuse(*words(tmp_path / "run", "tcn-transformer", "--epochs", 1)).exit_code == 0
    result = avfuse(*words(tmp_path / "run", "tcn-transformer", "--epochs", 2, "--resume"))
    assert result.exit_code == 0, result.stderr
    same_run(run, tmp_path / "run")


@pytest.mark.parametrize("preset", ["crossattn", "concat", "lfan", "can", "expr-transformer"])
def test_heads_for_vectors_refuse_it_in_one_line(words, avfuse, preset, tmp_path):
    result = avfuse(*words(tmp_path / "run", preset))
    assert result.exit_code == 1
    line = f"face_map has rows of shape (6, 2, 3); the head {preset} takes features [T, D]: choose other --modalities"
    assert line in result.stderr.splitlines()[-1]


def test_maps_of_another_size(run, corpus, plant_small, avfuse, tmp_path):
    other = plant_small(tmp_path)
    for trial in ("clip3", "clip7"):
        rows = corpus.rows(trial)
        maps = {"face_map": rows["face_map"][..., :2], "face_map_valid": rows["face_map_valid"]}
        other.rewrite(trial, **maps)
    result = avfuse("evaluate", "--run", run, "--store", other.store, "--allow-other-features")
    assert result.exit_code == 1
    assert "face_map is 6×2×2 wide, it has learned from 6×2×3" in result.stderr.splitlines()[-1]
