"""S4's systems for expressions, end to end: a network of timm and the Transformer over it learn together."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from avfuse.features_store.labels.kinds import EXPR
from avfuse.features_store.store import FeatureStore

NETWORK = "timm:test_resnet"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, plant_small):
    """Faces of one grey each; how bright it is says which of two expressions they have. −1 in between."""
    corpus = plant_small(tmp_path_factory.mktemp("corpus"), trials=8)
    rng = np.random.default_rng(0)
    for number in range(8):
        kept = {name: corpus.rows(f"clip{number}")[name][:40] for name in ("time", "voice", "voice_valid")}
        classes = np.repeat(rng.permutation([0, 4, 0, 4]), 10)
        faces = np.where(classes == 4, 200, 60)[:, None, None, None] + rng.integers(-20, 21, (40, 112, 112, 3))
        arrays = {**kept, "crop112": faces.astype(np.uint8), "crop112_valid": np.ones(40, bool)}
        FeatureStore(corpus.store, mode="a").write(f"clip{number}", arrays, {"fingerprint": "planted"})
        va = corpus.labels(f"clip{number}")
        path = corpus.annotations / EXPR.folder / va.parent.name / va.name
        path.parent.mkdir(parents=True, exist_ok=True)
        classes[::7] = -1
        path.write_text("\n".join([EXPR.header, *map(str, classes), ""]))
    return corpus


def test_a_network_of_timm_learns_expressions_with_its_head(corpus, timm_network, avfuse, tmp_path):
    run = tmp_path / "run"
    tuned = ("--task", "expr", "--preset", "expr-transformer", "--visual", NETWORK, "--audio", "none")
    settings = {"window_frames": 16, "hop_frames": 12, "layers": 1, "heads": 2, "warmup_epochs": 0, "loss": "ce"}
    pairs = [f"--set={key}={value}" for key, value in {**settings, "lr": 1e-3, "backbone_lr": 1e-3}.items()]
    place = ("--store", corpus.store, "--annotations", corpus.annotations, "--out", run)
    how = ("--fold", 0, "--epochs", 6, "--device", "cpu", "--no-plots", "--no-tensorboard")
    result = avfuse("finetune", *place, *tuned, "--weights", f"{NETWORK}={timm_network}", *pairs, *how)
    assert result.exit_code == 0, result.stderr
    scores = json.loads((run / "metrics.json").read_text())
    assert {f"f1_{name.lower()}" for name in EXPR.names} <= scores.keys()
    assert min(scores["f1_neutral"], scores["f1_happiness"]) > 0.9  # the two that there are
    before, after = (load_file(folder / "model.safetensors") for folder in (timm_network, run / "timm" / "test_resnet"))
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved  # the last stage, and nothing of its batch norms' statistics
    assert not any("running" in name or name.startswith("conv1") for name in moved)
    assert scores["P"] == pytest.approx(scores["f1_macro"])
