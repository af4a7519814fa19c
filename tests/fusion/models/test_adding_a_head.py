"""The guide's head is a head: its file and its entry, as they stand there, are described and trained."""

import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from avfuse.features_store.labels.corpus import open_corpus
from avfuse.features_store.store import FeatureStore
from avfuse.fusion.artifacts.folder import read_description, write_description
from avfuse.fusion.config import RunConfig
from avfuse.fusion.describe import Reach, describe
from avfuse.fusion.folds.split import make_folds
from avfuse.fusion.models.table import HEADS, Head
from avfuse.fusion.runs.experiment import open_experiment
from avfuse.fusion.settings import preset
from avfuse.fusion.training.train import train

GUIDE = Path(__file__).parents[3] / "docs" / "adding-a-head.md"


@pytest.fixture
def smoothed(tmp_path, monkeypatch):
    """The file beside the other heads, and the entry among theirs."""
    file, entry = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    path = tmp_path / "smoothed.py"
    path.write_text(file)
    name = "avfuse.fusion.models.smoothed"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    (added,) = eval(f"{{{entry}}}", {"Head": Head}).items()
    monkeypatch.setitem(HEADS, *added)
    return added[0]


def test_it_is_what_the_guide_says(smoothed):
    found = describe(preset(smoothed), [(512,), (128,), (128,)])
    assert sum(found.parameters.values()) == 1_538
    assert set(found.reach.values()) == {Reach(12, 12)}
    assert not found.causal
    assert found.settings["reach"] == (12, "ours")
    assert found.settings["lr"] == (1e-3, "this preset")
    words = " ".join(GUIDE.read_text().split())
    assert "1,538 parameters, that an output is moved by the 12 frames before and after its own" in words
    assert "not causal" in words


def test_it_is_trained(smoothed, make_planted, tmp_path):
    planted = make_planted(widths=(9, 5, 4), trials=8, rows=(60, 90))
    config = replace(preset(smoothed), window_frames=60, hop_frames=60, warmup_epochs=0, max_epochs=1, lr=1e-2)
    store, corpus, run = FeatureStore(planted.store), open_corpus(planted.annotations), RunConfig(device="cpu")
    opened = open_experiment(store, corpus, make_folds(corpus), [0], config, run, allow_other_features=False)
    described = opened.describe(config, 0)
    write_description(tmp_path / "run", described, {})
    outcome = train(described, opened.data, run, tmp_path / "run")
    assert outcome.reason == "all 1 epoch done" or len(outcome.history) == 1
    assert outcome.predictions.keys() == set(described.fold.validation)
    assert read_description(tmp_path / "run").config.preset == "smoothed"
