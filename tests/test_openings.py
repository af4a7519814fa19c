"""A command opens its store once, and hands it on: behind a URL an opening is a walk to another machine."""

import os

import numpy as np
import pytest

from avfuse.features_store.records.provenance import inputs_of, record_inputs
from avfuse.features_store.store import FeatureStore


@pytest.fixture
def openings(monkeypatch, avfuse):
    """How often a command, which must go well, opens a store."""
    opened: list[str] = []
    whole = FeatureStore.__init__

    def counted(self, path, mode="r"):
        opened.append(os.fspath(path))
        whole(self, path, mode)

    def count(*words):
        opened.clear()
        with monkeypatch.context() as patched:
            patched.setattr(FeatureStore, "__init__", counted)
            result = avfuse(*words)
        assert result.exit_code == 0, result.stderr
        return len(opened)

    return count


def test_train(openings, plant_small, train_words, tmp_path):
    corpus = plant_small(tmp_path / "corpus")
    record_inputs(FeatureStore(corpus.store, mode="a").files, inputs_of(corpus.store, corpus.annotations, None, {}))
    words = train_words(corpus, tmp_path / "out", "--epochs", 1)
    assert openings(*words) == 1
    remembered = [word for word in words if word not in ("--annotations", corpus.annotations)]
    assert openings(*remembered, "--replace") == 1


def test_extract(openings, make_clip, tmp_path):
    frames = np.zeros((10, 48, 64, 3), np.uint8)
    clip = make_clip("clip.mp4", frames, samples=np.zeros(17_640, np.float32))
    words = ("extract", "--videos", clip.parent, "--store", tmp_path / "s.zarr", "--features", "mfcc")
    assert openings(*words) == 1
    assert openings(*words) == 1  # nothing to do
    assert openings(*words, "--features", "mfcc,logmel") == 1


def test_import_and_remove(openings, plant_small, tmp_path):
    corpus = plant_small(tmp_path / "corpus")
    store = FeatureStore(corpus.store)
    (tmp_path / "made").mkdir()
    for name, trial in store.items():
        np.save(tmp_path / "made" / f"{name}.npy", np.zeros((trial.rows, 3), np.float32))
    words = ("--store", corpus.store)
    assert openings("import-features", *words, "--name", "mine", "--from", tmp_path / "made", "--dry-run") == 1
    assert openings("import-features", *words, "--name", "mine", "--from", tmp_path / "made") == 1
    assert openings("remove", *words, "--feature", "mine", "--dry-run") == 1
    assert openings("remove", *words, "--feature", "mine") == 1
    assert "mine" not in FeatureStore(corpus.store)["clip0"]
