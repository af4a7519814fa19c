"""Whole runs: the same again from the same seed, whatever is around them; and what ends them."""

import csv

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from avfuse.features_store.labels.annotations import read_labels
from avfuse.fusion.artifacts.state import read_metrics


def history(run):
    with (run / "history.csv").open() as file:
        return [{key: float(value) if value else None for key, value in row.items()} for row in csv.DictReader(file)]


def test_the_same_seed_gives_the_same_run(small, trained, fit, same_run, tmp_path):
    """Plots and TensorBoard beside, another place, and torch's own generator elsewhere change nothing."""
    torch.rand(7)
    fit(small, tmp_path / "again")
    same_run(tmp_path / "again", trained)


def test_another_seed_gives_another_run(small, trained, fit, tmp_path):
    fit(small, tmp_path / "other", "--seed", 1)
    one, other = load_file(tmp_path / "other" / "model.safetensors"), load_file(trained / "model.safetensors")
    assert one.keys() == other.keys()
    assert not any(torch.equal(one[name], other[name]) for name in one if name.endswith("original1"))
    assert history(tmp_path / "other")[0]["loss"] != history(trained)[0]["loss"]


def test_rows_streamed_from_the_store_give_the_same_run(small, trained, fit, same_run, tmp_path):
    result = fit(small, tmp_path / "streamed", "--memory-gb", 0)
    assert "streamed from the store" in result.stderr
    same_run(tmp_path / "streamed", trained)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_other_number_formats(small, trained, fit, tmp_path, precision):
    fit(small, tmp_path / "run", "--precision", precision)
    one, other = (load_file(run / "model.safetensors") for run in (tmp_path / "run", trained))
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in one.values())
    assert not all(torch.equal(one[name], other[name]) for name in one)
    for row, exact in zip(history(tmp_path / "run"), history(trained), strict=True):
        assert row["P"] == pytest.approx(exact["P"], abs=0.05)


def test_metrics_are_those_of_the_prediction_files(small, trained, plain_ccc):
    """Scored by hand: files against files, all valid frames of all trials as one sequence."""
    truths, outputs = [], []
    for name in ("clip3", "clip7"):
        labels = read_labels(small.labels(name))
        predicted = np.loadtxt(trained / "predictions" / f"{name}.txt", delimiter=",", skiprows=1)
        assert len(labels.valid) == len(predicted)
        assert predicted[:, 0] == pytest.approx(np.arange(len(predicted)) / 25)
        assert predicted[:, 3].all()
        truths.append(labels.values[labels.valid].astype(float))
        outputs.append(predicted[labels.valid, 1:3])
    truth, predictions = np.concatenate(truths), np.concatenate(outputs)
    assert len(truth) == 115 - 10 + 135
    metrics = read_metrics(trained)
    scores = [plain_ccc(predictions[:, column], truth[:, column]) for column in (0, 1)]
    assert [metrics["ccc_valence"], metrics["ccc_arousal"]] == pytest.approx(scores, abs=1e-5)
    assert metrics["P"] == pytest.approx(np.mean(scores), abs=1e-5)
    assert metrics["frames"] == len(truth)


def test_metrics_are_the_best_epoch_s(trained):
    rows, metrics = history(trained), read_metrics(trained)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    best = max(rows, key=lambda row: row["P"])
    assert metrics["epoch"] == best["epoch"]
    assert [metrics[name] for name in ("P", "ccc_valence", "ccc_arousal")] == [
        best[name] for name in ("P", "ccc_valence", "ccc_arousal")
    ]


def test_it_ends_when_nothing_gets_better(small, fit, tmp_path):
    """With steps that are far too long P falls; the best epoch stays, and the rate goes down on the plateau."""
    words = ("--set", "lr=0.3", "--set", "early_stop=2", "--set", "plateau_patience=0", "--epochs", 30)
    result = fit(small, tmp_path / "run", *words)
    rows, metrics = history(tmp_path / "run"), read_metrics(tmp_path / "run")
    best = max(rows, key=lambda row: row["P"])
    assert len(rows) == best["epoch"] + 2 < 30
    assert metrics["epoch"] == best["epoch"]
    assert "no better P in 2 epochs" in result.stderr
    assert rows[-1]["lr"] == pytest.approx(0.1 * rows[int(best["epoch"]) - 1]["lr"])


@pytest.mark.parametrize(
    ("task", "other"), [("valence", "arousal"), pytest.param("arousal", "valence", marks=pytest.mark.slow)]
)
def test_one_task(small, fit, tmp_path, task, other):
    run = tmp_path / "run"
    fit(small, run, "--task", task, "--plots", "--figures", "pdf", "--tensorboard", "--epochs", 2)
    assert sorted(path.name for path in (run / "plots").glob("*.*")) == ["all_frames.pdf", "learning_curves.pdf"]
    metrics = read_metrics(run)
    assert metrics[f"ccc_{other}"] is None
    assert metrics["P"] == metrics[f"ccc_{task}"] == max(row[f"ccc_{task}"] for row in history(run))
    assert {row[f"ccc_{other}"] for row in history(run)} == {None}
    lines = (run / "predictions" / "clip3.txt").read_text().splitlines()
    assert lines[0] == f"time_s,{task},valid"
    assert len(lines) == 1 + 115
    assert load_file(run / "model.safetensors")["head.4.weight"].shape == (1, 8)


def test_one_modality(small, fit, tmp_path):
    fit(small, tmp_path / "run", "--modalities", "voice", "--epochs", 1)
    assert read_metrics(tmp_path / "run")["frames"] == 240


@pytest.mark.parametrize("preset", ["concat", "su-zhang"])
def test_other_presets(small, avfuse, tmp_path, preset):
    own = [] if preset == "concat" else ["--set", "lead_channels=8", "--set", "other_channels=8"]
    words = ("--store", small.store, "--annotations", small.annotations, "--out", tmp_path / "run", "--preset", preset)
    more = ("--fold", 0, "--epochs", 1, "--modalities", "face,voice", "--device", "cpu", "--no-plots", *own)
    result = avfuse("train", *words, *more)
    assert result.exit_code == 0, result.stderr
    assert read_metrics(tmp_path / "run")["epoch"] == 1
