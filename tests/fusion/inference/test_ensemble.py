"""Several runs as one: the mean of their predictions, each trial only by runs that have not learned from it."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from avfuse.fusion.inference.ensemble import find_runs, open_run
from avfuse.fusion.results import plots

CPU = torch.device("cpu")


def rows_of(folder):
    """{trial: [T, C]} of a folder of predictions."""
    found = sorted((folder / "predictions").rglob("*.txt"))
    return {path.stem: np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)[:, 1:-1] for path in found}


@pytest.fixture(scope="module")
def evaluate(avfuse, tmp_path_factory):
    """Evaluate runs, without the pictures, which take longest; returns the report and the predictions."""

    def run(*runs, words=()):
        out = tmp_path_factory.mktemp("evaluated")
        given = [word for folder in runs for word in ("--run", folder)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plots, "draw_predictions", lambda *_: None)
            result = avfuse("evaluate", *given, "--out", out, "--json", "--device", "cpu", *words)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout), rows_of(out)

    return run


@pytest.fixture(scope="module")
def one_task(tmp_path_factory, small, fit):
    """Runs of fold 0 that have learned one task each."""
    folders = {}
    for task in ("valence", "arousal"):
        folders[task] = tmp_path_factory.mktemp("tasks") / task
        fit(small, folders[task], "--task", task, "--epochs", 1)
    return folders


def test_seeds_are_averaged(grid, evaluate):
    report, found = evaluate(grid / "fold0")
    each = [rows_of(grid / f"fold0/seed{seed}") for seed in (0, 1)]
    assert list(found) == list(each[0]) == ["clip3", "clip7"]
    for name, rows in found.items():
        assert np.abs(each[0][name] - each[1][name]).max() > 1e-3
        assert rows == pytest.approx((each[0][name] + each[1][name]) / 2, abs=2e-6)
    assert report["trials"] == 2


def test_a_trial_is_predicted_by_the_runs_that_hold_it_out(grid, small, evaluate):
    report, found = evaluate(grid)
    held_out: dict[str, list[np.ndarray]] = {name: [] for name in found}
    for run in sorted(grid.glob("fold*/seed*")):
        fold = json.loads((run / "fold.json").read_text())
        for name, rows in rows_of(run).items():
            assert name in fold["validation"]
            assert name not in fold["train"]
            held_out[name].append(rows)
    assert set(found) == {f"clip{number}" for number in range(8)}
    for name, rows in found.items():
        assert len(held_out[name]) == 2
        assert rows == pytest.approx(np.mean(held_out[name], axis=0), abs=2e-6)
    assert report["frames"] == sum(100 + 5 * number for number in range(8)) - 10
    assert [trial["trial"] for trial in report["by_trial"]] == [f"clip{number}" for number in range(8)]


def test_a_run_of_each_task(one_task, evaluate):
    report, found = evaluate(one_task["arousal"], one_task["valence"])
    for name, rows in found.items():
        assert rows[:, :1] == pytest.approx(rows_of(one_task["valence"])[name], abs=2e-6)
        assert rows[:, 1:] == pytest.approx(rows_of(one_task["arousal"])[name], abs=2e-6)
    for task, folder in one_task.items():
        metrics = json.loads((folder / "metrics.json").read_text())
        assert report[f"ccc_{task}"] == pytest.approx(metrics["P"], abs=1e-6)


def test_a_task_that_one_run_has_and_another_has_not(one_task, trained, evaluate):
    _, found = evaluate(trained, one_task["valence"])
    for name, rows in found.items():
        both, alone = rows_of(trained)[name], rows_of(one_task["valence"])[name]
        assert rows[:, 0] == pytest.approx((both[:, 0] + alone[:, 0]) / 2, abs=2e-6)
        assert rows[:, 1] == pytest.approx(both[:, 1], abs=2e-6)


def test_a_task_that_no_run_has_for_a_trial(one_task, grid, avfuse):
    result = avfuse("evaluate", "--run", one_task["valence"], "--run", grid / "fold2/seed0")
    assert result.exit_code == 1
    assert "no run predicts its arousal" in result.stderr.splitlines()[-1]


def test_runs_of_other_modalities(small, trained, fit, evaluate, tmp_path):
    """In another order, too: the statistics and the network's inputs go with the names."""
    fit(small, tmp_path / "turned", "--modalities", "voice,face", "--epochs", 1)
    fit(small, tmp_path / "voice", "--modalities", "voice", "--epochs", 1)
    runs = (trained, tmp_path / "turned", tmp_path / "voice")
    _, found = evaluate(*runs)
    for name, rows in found.items():
        assert rows == pytest.approx(np.mean([rows_of(run)[name] for run in runs], axis=0), abs=2e-6)


class TestFindRuns:
    def test_a_run_and_runs_below(self, trained, grid):
        assert find_runs([trained]) == [trained]
        assert find_runs([grid]) == [grid / f"fold{fold}" / f"seed{seed}" for fold in range(6) for seed in range(2)]

    def test_a_run_counts_once(self, grid):
        assert find_runs([grid / "fold1", grid / "fold1" / "seed0"]) == [grid / "fold1/seed0", grid / "fold1/seed1"]

    @pytest.mark.parametrize("name", ["nowhere", "."])
    def test_none(self, tmp_path, name):
        with pytest.raises(ValueError, match="does not hold a run"):
            find_runs([tmp_path / name])


class TestOpenRun:
    @pytest.fixture
    def run(self, trained, tmp_path):
        return shutil.copytree(trained, tmp_path / "run")

    def test_the_network_is_ready_to_predict(self, trained):
        opened = open_run(trained, CPU)
        assert not opened.model.training
        assert opened.described.fold.number == 0

    def test_the_weights_of_another_network(self, run):
        save_file({"linear.weight": torch.zeros(2, 10)}, run / "model.safetensors")
        with pytest.raises(ValueError, match=r"model\.safetensors is not the network of its config\.json"):
            open_run(run, CPU)

    def test_settings_of_another_network(self, run):
        config = json.loads((run / "config.json").read_text())
        config["model"]["hidden"] = 9
        (run / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match="is not the network of its"):
            open_run(run, CPU)


def test_features_of_another_width(trained, plant_small, avfuse, tmp_path):
    corpus = plant_small(tmp_path)
    for trial in ("clip3", "clip7"):
        corpus.rewrite(trial, voice=corpus.rows(trial)["voice"][:, :3])
    result = avfuse("evaluate", "--run", trained, "--store", corpus.store, "--allow-other-features")
    assert result.exit_code == 1
    assert "voice is 3 wide, it has learned from 4" in result.stderr.splitlines()[-1]
