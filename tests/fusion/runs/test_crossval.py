"""Folds times seeds: a folder a run, the table, and calls that only do what is left."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from avfuse import __version__
from avfuse.fusion.runs.crossval import RunSpec, pending_runs, plan_runs, sum_up
from avfuse.fusion.settings import preset

FOLDS, SEEDS = range(6), range(2)
WHOLE = ("--fold", "all", "--seeds", 2, "--epochs", 2)


@pytest.fixture
def runs(grid, tmp_path):
    """A copy of the grid, to be changed."""
    return shutil.copytree(grid, tmp_path / "runs")


@pytest.fixture(scope="module")
def scores(grid):
    """[6, 2, 3]: fold, seed, (valence, arousal, P) out of each run's metrics.json."""
    keys = ("ccc_valence", "ccc_arousal", "P")
    found = [[json.loads((grid / f"fold{k}/seed{s}/metrics.json").read_text()) for s in SEEDS] for k in FOLDS]
    return np.array([[[run[key] for key in keys] for run in fold] for fold in found])


def contents(folder):
    """Every file but the table, when it was written and what is in it."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent != folder]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def table_of(folder):
    with (folder / "crossval.csv").open() as file:
        return list(csv.DictReader(file))


class TestTable:
    def test_csv(self, grid, scores):
        rows = table_of(grid)
        assert [row["fold"] for row in rows] == ["0", "1", "2", "3", "4", "5", "mean"]
        best = scores[:, :, 2].argmax(1)
        chosen = scores[FOLDS, best]
        for at, task in enumerate(("valence", "arousal", "P")):
            columns = {kind: [float(row[f"{kind}_{task}"]) for row in rows] for kind in ("best", "mean", "sd")}
            assert columns["best"] == pytest.approx([*chosen[:, at], chosen[:, at].mean()])
            assert columns["mean"] == pytest.approx([*scores[:, :, at].mean(1), scores[:, :, at].mean()])
            over = scores[:, :, at].mean(0).std(ddof=1)
            assert columns["sd"] == pytest.approx([*scores[:, :, at].std(1, ddof=1), over])
        assert [row["seed"] for row in rows] == [*map(str, best), ""]

    def test_the_others_say_the_same(self, grid):
        rows = table_of(grid)
        found = json.loads((grid / "crossval.json").read_text())
        lines = [*found["folds"], found["mean"]]
        assert [line["best"]["P"] for line in lines] == [float(row["best_P"]) for row in rows]
        for name in ("crossval.txt", "crossval.md"):
            text = (grid / name).read_text()
            for row in rows:
                assert f"{float(row['best_valence']):z.3f}" in text
                assert f"±{float(row['sd_P']):.3f}" in text

    def test_what_it_was_made_of(self, small, grid):
        """Runs, store, labels, command line and version, in the table's JSON; a run has it in files of its own."""
        made = json.loads((grid / "crossval.json").read_text())["made"]
        assert made["runs"] == [f"fold{fold}/seed{seed}" for fold in FOLDS for seed in SEEDS]
        assert (made["store"], made["annotations"]) == ([str(small.store)], [str(small.annotations)])
        assert (made["avfuse"], made["smoothing"], made["UNTRAINED"]) == (__version__, "none", [])
        environment = json.loads((grid / "fold3/seed1/environment.json").read_text())
        for command in (made["command"], environment["command"]):
            assert command.startswith(f"avfuse train --store {small.store}")
            assert command.endswith("--fold all --seeds 2 --epochs 2")

    def test_untrained_features_are_in_the_table_s_files(self, plant_small, fit, tmp_path):
        corpus = plant_small(tmp_path, weights={"voice": {"name": "small", "untrained": 0}})
        result = fit(corpus, tmp_path / "runs", "--seeds", 2, "--epochs", 1)
        for name in ("crossval.txt", "crossval.md"):
            assert "UNTRAINED WEIGHTS: voice: for tests and demos only" in (tmp_path / "runs" / name).read_text()
        assert json.loads((tmp_path / "runs/crossval.json").read_text())["made"]["UNTRAINED"] == ["voice"]
        assert "UNTRAINED" not in result.stdout  # it was said on stderr

    def test_on_stdout(self, small, grid, runs, fit):
        result = fit(small, runs, *WHOLE)
        assert result.stdout == (grid / "crossval.txt").read_text()
        assert (grid / "crossval.tex").read_text().count(r"\midrule") == 2
        assert "0 runs to do, 12 done before" in result.stderr

    def test_as_json(self, small, runs, scores, fit):
        result = fit(small, runs, *WHOLE, "--json")
        found = json.loads(result.stdout)
        assert [(run["fold"], run["seed"]) for run in found] == [(k, s) for k in FOLDS for s in SEEDS]
        assert [run["P"] for run in found] == scores[:, :, 2].flatten().tolist()
        assert found[3]["run"] == str(runs / "fold1" / "seed1")


class TestOnlyWhatIsLeft:
    def test_nothing_is_left(self, small, runs, fit):
        before = contents(runs)
        fit(small, runs, *WHOLE)
        assert contents(runs) == before

    def test_an_interrupted_grid_goes_on(self, small, grid, runs, fit, same_run):
        """One run was stopped before its end, one before its first epoch, one had not begun."""
        (runs / "fold2/seed0/finished.json").unlink()
        for path in (runs / "fold2/seed1").iterdir():
            if path.name not in ("fold.json", "features.json"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.rmtree(runs / "fold5")
        (runs / "crossval.csv").unlink()
        left = ("fold2", "fold5")
        before = {path: found for path, found in contents(runs).items() if path.relative_to(runs).parts[0] not in left}
        result = fit(small, runs, *WHOLE)
        assert "4 runs to do, 8 done before" in result.stderr
        assert before.items() <= contents(runs).items()
        assert (runs / "crossval.csv").read_bytes() == (grid / "crossval.csv").read_bytes()
        for fold in FOLDS:
            for seed in SEEDS:
                same_run(runs / f"fold{fold}/seed{seed}", grid / f"fold{fold}/seed{seed}")

    def test_more_epochs(self, small, grid, fit, same_run, tmp_path):
        words = ("--fold", 1, "--seeds", 2)
        fit(small, tmp_path / "runs", *words, "--epochs", 1)
        result = fit(small, tmp_path / "runs", *words, "--epochs", 2)
        assert "2 runs to do, 0 done before" in result.stderr
        for seed in SEEDS:
            same_run(tmp_path / f"runs/fold1/seed{seed}", grid / f"fold1/seed{seed}")

    def test_a_call_of_fewer_runs_keeps_the_whole_table(self, small, grid, runs, fit):
        shutil.rmtree(runs / "fold3/seed1")
        before = table_of(runs)
        fit(small, runs, "--fold", 3, "--seeds", 2, "--epochs", 2)
        assert table_of(runs) == before == table_of(grid)

    def test_more_seeds(self, small, runs, fit, same_run):
        shutil.rmtree(runs / "fold3/seed1")
        before = contents(runs)
        result = fit(small, runs, "--fold", 3, "--seeds", 1, "--seed", 1, "--epochs", 2, "--out", runs / "fold3/seed1")
        assert "1 run to do, 0 done before" in result.stderr
        assert before.items() <= contents(runs).items()
        assert "0 runs to do, 12 done before" in fit(small, runs, *WHOLE).stderr


class TestOneRunFails:
    def test_the_others_are_done(self, small, grid, runs, avfuse, train_words, fit):
        broken = runs / "fold2/seed0"
        (broken / "finished.json").unlink()
        (broken / "training.pt").write_bytes(b"not whole")
        shutil.rmtree(runs / "fold4/seed1")
        result = avfuse(*train_words(small, runs, *WHOLE))
        assert result.exit_code == 1
        last = result.stderr.strip().splitlines()[-1]
        assert last.startswith(f"Error: 1 of 12 runs failed: {broken}: ")
        assert "training.pt is broken" in last
        found = table_of(runs)
        assert [row["seeds"] for row in found] == ["2", "2", "1", "2", "2", "2", "1"]
        assert found[4] == table_of(grid)[4]
        assert result.stdout == (runs / "crossval.txt").read_text()
        shutil.rmtree(broken)
        fit(small, runs, *WHOLE)
        assert table_of(runs) == table_of(grid)

    def test_all_of_them_fail(self, small, avfuse, train_words, tmp_path):
        """Steps of this length leave no number a number."""
        words = ("--seeds", 2, "--set", "lr=1e30", "--set", "warmup_epochs=0")
        result = avfuse(*train_words(small, tmp_path / "runs", *words))
        assert result.exit_code == 1
        assert "2 of 2 runs failed" in result.stderr.splitlines()[-1]
        assert "the loss of epoch" in result.stderr.splitlines()[-1]
        assert result.stdout == ""


class TestPlan:
    CONFIG = replace(preset("crossattn"), seed=3)

    def test_one_run_lies_in_the_folder_itself(self, tmp_path):
        assert plan_runs(tmp_path, [4], [3], self.CONFIG) == [RunSpec(4, self.CONFIG, tmp_path)]

    def test_several_have_folders_of_their_own(self, tmp_path):
        runs = plan_runs(tmp_path, [0, 2], [3, 4], self.CONFIG)
        assert [(run.fold, run.config.seed) for run in runs] == [(0, 3), (0, 4), (2, 3), (2, 4)]
        assert runs[-1].folder == tmp_path / "fold2" / "seed4"

    def test_several_into_the_folder_of_one(self, trained):
        with pytest.raises(ValueError, match="holds one run, and several are to be trained"):
            plan_runs(trained, [0, 1], [0], self.CONFIG)

    def test_one_into_the_folder_of_several(self, grid):
        with pytest.raises(ValueError, match="holds other files and is not the folder of a run"):
            pending_runs([RunSpec(0, self.CONFIG, grid)], resume=True)

    def test_a_score_that_is_not_there(self, tmp_path):
        with pytest.raises(ValueError, match="does not hold a run"):
            sum_up(tmp_path, [RunSpec(0, self.CONFIG, tmp_path)], self.CONFIG, lambda run: True)


def test_too_few_trials_for_a_rotation(plant_small, fit, tmp_path):
    """`all` is fold 0 alone, and says so; the run lies in the folder itself."""
    corpus = plant_small(tmp_path, trials=5)
    result = fit(corpus, tmp_path / "run", "--fold", "all", "--epochs", 1)
    assert "only fold 0" in result.stderr
    assert (tmp_path / "run" / "metrics.json").is_file()
