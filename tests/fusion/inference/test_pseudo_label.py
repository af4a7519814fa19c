"""Pseudo-labels: where runs agree; and what trains on them, and never validates."""

import json
import shutil

import numpy as np
import pytest

from avfuse.features_store.labels.corpus import labels_of, open_corpus
from avfuse.fusion.artifacts.folder import read_description
from avfuse.fusion.inference.ensemble import Predictions
from avfuse.fusion.inference.pseudo_label import pseudo_labels
from avfuse.fusion.results.prediction_files import read_prediction
from avfuse.fusion.tasks.table import TASKS


def predictions(task="va", **trials):
    """Of {trial: one [R, T, C] a run}."""
    runs = {name: np.asarray(rows, np.float32) for name, rows in trials.items()}
    means = {name: rows.mean(0) for name, rows in runs.items()}
    spread = {name: np.ptp(rows, axis=0) if len(rows) > 1 else rows[0] * np.nan for name, rows in runs.items()}
    return Predictions(TASKS[task], means, {name: np.ones(len(rows), bool) for name, rows in means.items()}, spread)


class TestAgreement:
    def test_each_column_by_itself(self):
        of = predictions(a=[[[0.3, 0.1], [0.5, 0.2], [0.0, 0.9]], [[0.32, 0.1], [0.2, 0.25], [0.5, 0.0]]])
        found = pseudo_labels(of, 0.06)
        assert found.trials["a"] == pytest.approx(np.array([[0.31, 0.1], [-5, 0.225], [-5, -5]]), abs=1e-6)
        assert (found.labelled, found.rows) == (1, 3)

    def test_rows_that_no_feature_was_made_for(self):
        of = predictions(a=np.zeros((2, 3, 2)))
        of.valid["a"][1] = False
        assert (pseudo_labels(of, 0.1).trials["a"] == [[0, 0], [-5, -5], [0, 0]]).all()

    def test_names_that_labels_cannot_tell_apart(self):
        rows = np.zeros((2, 3, 2))
        found = pseudo_labels(predictions(**{"x/a": rows, "y/a": rows, "y/b": rows}), 0.1)
        assert (list(found.trials), found.several) == (["y/b"], ("x/a", "y/a"))

    @pytest.mark.parametrize(
        ("of", "message"),
        [
            (predictions("valence", a=np.zeros((2, 3, 1))), "the runs predict valence"),
            (predictions(a=np.zeros((1, 3, 2))), "only one run predicts valence and arousal"),
            (
                predictions(a=[np.zeros((3, 2)), np.ones((3, 2))]),
                "agree within 0.1 on valence and arousal in no row of 3",
            ),
        ],
    )
    def test_what_cannot_be_labelled(self, of, message):
        with pytest.raises(ValueError, match=message):
            pseudo_labels(of, 0.1)


@pytest.fixture(scope="module")
def corpus(plant_small, tmp_path_factory):
    """Of ten trials of the store clip8 and clip9 have no labels."""
    corpus = plant_small(tmp_path_factory.mktemp("corpus"), trials=10)
    for name in ("clip8", "clip9"):
        corpus.labels(name).unlink()
    return corpus


@pytest.fixture(scope="module")
def runs(corpus, fit, tmp_path_factory):
    """Two seeds of fold 0."""
    folder = tmp_path_factory.mktemp("runs") / "runs"
    fit(corpus, folder, "--seeds", 2)
    return folder


@pytest.fixture(scope="module")
def pseudo(avfuse, corpus, runs, tmp_path_factory):
    """Labels of the two trials, and how they were made."""
    out = tmp_path_factory.mktemp("pseudo") / "labels"
    words = ("--run", runs, "--store", corpus.store, "--agreement", 0.4, "--out", out, "--device", "cpu")
    return out, avfuse("pseudo-label", *words)


class TestCommand:
    def test_the_mean_of_the_runs_where_they_agree(self, avfuse, corpus, runs, pseudo, tmp_path):
        out, result = pseudo
        assert result.exit_code == 0, result.stderr
        each = []
        for seed in range(2):
            place = ("--store", corpus.store, "--out", tmp_path / str(seed), "--device", "cpu")
            avfuse("predict", "--run", runs / f"fold0/seed{seed}", *place)
            each.append(read_prediction(tmp_path / str(seed) / "clip9.txt")[1])
        labels = open_corpus(out)
        assert list(labels.files) == ["clip8", "clip9"]
        found = labels_of(labels, "clip9").values
        agreed = np.ptp(each, axis=0) <= 0.4
        assert 0 < agreed.mean() < 1
        assert found == pytest.approx(np.where(agreed, np.mean(each, axis=0), -5), abs=2e-6)

    def test_it_says_what_it_is(self, pseudo, runs):
        out, result = pseudo
        made = json.loads((out / "made.json").read_text())
        assert (made["results"], made["made"]["pseudo"], made["made"]["agreement"]) == ("pseudo-label", True, 0.4)
        assert made["made"]["runs"] == [str(runs / f"fold0/seed{seed}") for seed in range(2)]
        assert sorted(made["files"]) == [f"VA_Estimation_Challenge/Train_Set/clip{at}.txt" for at in (8, 9)]
        assert "note: left out, since the runs have seen their labels: clip0, clip1, clip2" in result.stderr

    def test_trials_that_the_runs_have_seen(self, avfuse, corpus, runs, tmp_path):
        words = ("--run", runs, "--store", corpus.store, "--agreement", 0.2, "--out", tmp_path, "--device", "cpu")
        result = avfuse("pseudo-label", *words, "--seen", "--json")
        assert json.loads(result.stdout)["trials"] == 10

    def test_nothing_is_left(self, avfuse, small, trained, tmp_path):
        words = ("--run", trained, "--store", small.store, "--agreement", 0.2, "--out", tmp_path / "out")
        result = avfuse("pseudo-label", *words, "--device", "cpu")
        assert result.exit_code == 1
        assert "have seen the labels of every trial" in result.stderr
        assert not (tmp_path / "out").exists()


def test_nothing_is_scored_on_them(avfuse, corpus, runs, pseudo, train_words, tmp_path):
    folder = shutil.copytree(pseudo[0], tmp_path / "labels")
    held_out = folder / "VA_Estimation_Challenge/Validation_Set/clip9.txt"
    held_out.parent.mkdir()
    (folder / "VA_Estimation_Challenge/Train_Set/clip9.txt").rename(held_out)
    words = ("--run", runs, "--store", corpus.store, "--device", "cpu", "--annotations", folder)
    for result in (
        avfuse("evaluate", *words),
        avfuse(*train_words(corpus, tmp_path / "run"), "--annotations", folder),
    ):
        assert result.exit_code == 1
        assert f"{folder} holds pseudo-labels" in result.stderr
        assert "--extra-annotations" in result.stderr


class TestExtraAnnotations:
    def test_they_are_trained_on_and_never_validated_on(self, corpus, pseudo, fit, tmp_path):
        result = fit(corpus, tmp_path / "run", "--extra-annotations", pseudo[0])
        assert f"note: fold 0: 2 trials of {pseudo[0]} to train on as well" in result.stderr
        assert "features but no labels" not in result.stderr
        described = read_description(tmp_path / "run")
        assert described.fold.train == (*(f"clip{at}" for at in (0, 1, 2, 4, 5, 6)), "clip8", "clip9")
        assert described.fold.validation == ("clip3", "clip7")
        assert described.extra == {"annotations": str(pseudo[0]), "trials": ["clip8", "clip9"]}
        assert {"clip8", "clip9"} <= described.labels.keys() & described.features.trials.keys()
        assert {path.stem for path in (tmp_path / "run/predictions").iterdir()} == {"clip3", "clip7"}

    def test_they_change_what_is_learned_and_its_statistics(self, corpus, runs, pseudo, fit, tmp_path):
        fit(corpus, tmp_path / "run", "--extra-annotations", pseudo[0])
        one, other = tmp_path / "run", runs / "fold0/seed0"
        for name in ("model.safetensors", "statistics.json"):
            assert (one / name).read_bytes() != (other / name).read_bytes()

    def test_a_run_with_them_is_another_run(self, corpus, pseudo, avfuse, train_words, fit, tmp_path):
        fit(corpus, tmp_path / "run", "--epochs", 1)
        extra = shutil.copytree(pseudo[0], tmp_path / "extra")
        again = avfuse(*train_words(corpus, tmp_path / "run", "--epochs", 1, "--extra-annotations", extra))
        assert again.exit_code == 1
        assert "training trials: 6 in the run, 8 now (only now: clip8, clip9)" in again.stderr
        fit(corpus, tmp_path / "other", "--epochs", 1, "--extra-annotations", extra)
        path = extra / "VA_Estimation_Challenge/Train_Set/clip8.txt"
        path.write_text(path.read_text().replace("\n0.", "\n-0.", 1))
        result = avfuse(*train_words(corpus, tmp_path / "other", "--epochs", 1, "--extra-annotations", extra))
        assert "was trained on other labels than there are now (labels of clip8" in result.stderr

    def test_trials_with_labels_of_their_own_keep_them(self, corpus, pseudo, fit, tmp_path):
        """Above all those that are validated on."""
        extra = shutil.copytree(pseudo[0], tmp_path / "extra")
        folder = extra / "VA_Estimation_Challenge/Train_Set"
        for name in ("clip3", "clip4"):
            shutil.copy(corpus.labels(name), folder / f"{name}.txt")
        result = fit(corpus, tmp_path / "run", "--epochs", 1, "--extra-annotations", extra)
        assert (
            f"note: clip3, clip4: labels in {extra} do not count, since {corpus.annotations} has them" in result.stderr
        )
        assert read_description(tmp_path / "run").extra["trials"] == ["clip8", "clip9"]

    def test_a_subject_that_is_validated_on_is_not_trained_on(self, plant_small, fit, tmp_path):
        """clip3_left is held out, and clip3_right shows the other person of the same video."""
        from avfuse.features_store.store import FeatureStore

        corpus = plant_small(tmp_path)
        store = FeatureStore(corpus.store, mode="a")
        for old, new in (("clip3", "clip3_left"), ("clip2", "clip3_right")):
            store.write(new, corpus.rows(old), {"fingerprint": "planted"})
            corpus.labels(old).rename(corpus.labels(old).with_name(f"{new}.txt"))
        extra = tmp_path / "extra/VA_Estimation_Challenge/Train_Set"
        extra.mkdir(parents=True)
        corpus.labels("clip3_right").rename(extra / "clip3_right.txt")
        words = ("--group", "subject", "--epochs", 1, "--extra-annotations", tmp_path / "extra")
        result = fit(corpus, tmp_path / "run", *words)
        assert "note: fold 0: not clip3_right, whose subjects it validates on" in result.stderr
        assert "clip3_right" not in read_description(tmp_path / "run").fold.train
