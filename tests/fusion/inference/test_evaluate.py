"""`evaluate` and `predict`: held-out trials scored again, and a store to files or to the challenge's submission."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from avfuse import __version__
from avfuse.encoders.weights.tuning import KEY
from avfuse.features_store.labels.annotations import read_labels
from avfuse.features_store.store import FeatureStore
from avfuse.fusion.artifacts.folder import read_description
from avfuse.fusion.artifacts.state import read_metrics
from avfuse.fusion.config import FinetuneConfig
from avfuse.fusion.finetuning.learner import leaks_of_base
from avfuse.fusion.folds.manifest import Fold
from avfuse.fusion.results.smoothing import parse_smoothing, smooth
from avfuse.fusion.runs.crossval import leak_of

UNTRAINED = {"voice": {"name": "small", "untrained": 0}}


def rows_of(path):
    """The predicted columns, without time_s and valid."""
    return np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)[:, 1:-1]


@pytest.fixture
def evaluate(avfuse):
    """Evaluate a run; returns the report."""

    def run(folder, *words):
        result = avfuse("evaluate", "--run", folder, "--json", "--device", "cpu", *words)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    return run


@pytest.fixture
def corpus(plant_small, tmp_path):
    """A corpus like that of `trained`, to be changed."""
    return plant_small(tmp_path / "corpus")


def refused(result):
    """The reason of a command that could not go on."""
    assert result.exit_code == 1
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("Error: ")
    assert result.stdout == ""
    return line


class TestEvaluate:
    def test_the_run_s_own_scores(self, trained, evaluate):
        report, metrics = evaluate(trained), read_metrics(trained)
        for name in ("P", "ccc_valence", "ccc_arousal", "mean_trial_ccc_valence", "mean_trial_ccc_arousal"):
            assert report[name] == pytest.approx(metrics[name], abs=1e-6)
        assert report["frames"] == metrics["frames"]

    def test_a_run_by_two_names_counts_once(self, trained, avfuse):
        result = avfuse("evaluate", "--run", trained, "--run", trained / ".." / trained.name, "--json")
        assert result.exit_code == 0
        assert "2 runs" not in result.stderr

    def test_a_run_that_has_not_finished_says_so(self, trained, avfuse, tmp_path):
        run = shutil.copytree(trained, tmp_path / "run")
        (run / "finished.json").unlink()
        result = avfuse("evaluate", "--run", run)
        assert result.exit_code == 0
        assert f"note: not finished, used as they are after their last epoch: {run}" in result.stderr

    def test_trial_by_trial(self, trained, small, evaluate, plain_ccc):
        for trial in evaluate(trained)["by_trial"]:
            labels = read_labels(small.labels(trial["trial"]))
            predicted = rows_of(trained / "predictions" / f"{trial['trial']}.txt")
            assert trial["rows"] == labels.valid.sum()
            for column, task in enumerate(("valence", "arousal")):
                pair = (each[labels.valid, column].astype(float) for each in (predicted, labels.values))
                assert trial[task] == pytest.approx(plain_ccc(*pair), abs=1e-5)

    def test_on_the_screen(self, trained, avfuse):
        result = avfuse("evaluate", "--run", trained)
        assert result.exit_code == 0
        metrics = read_metrics(trained)
        lines = result.stdout.splitlines()
        scores = [f"{metrics[name]:z.3f}" for name in ("ccc_valence", "ccc_arousal", "P")]
        assert lines[1].split() == ["CCC,", "all", "frames", *scores]
        assert {"clip3", "clip7"} == {line.split()[0] for line in lines if line.startswith("clip")}
        assert result.stderr == ""

    def test_out(self, trained, evaluate, tmp_path):
        report = evaluate(trained, "--out", tmp_path / "out")
        assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
        for name in ("clip3", "clip7"):
            text = (tmp_path / "out" / "predictions" / f"{name}.txt").read_text()
            assert text == (trained / "predictions" / f"{name}.txt").read_text()
        pictures = [*(tmp_path / "out" / "plots").rglob("*.png")]
        assert sorted(path.name for path in pictures) == ["all_frames.png", "clip3.png", "clip7.png"]
        for path in pictures:
            with Image.open(path) as picture:
                picture.load()

    @pytest.mark.parametrize(
        ("figures", "begins"), [("pdf", b"%PDF"), pytest.param("svg", b"<?xml", marks=pytest.mark.slow)]
    )
    def test_figures_for_print(self, trained, evaluate, tmp_path, figures, begins):
        evaluate(trained, "--out", tmp_path / "out", "--figures", figures)
        pictures = [path for path in (tmp_path / "out" / "plots").rglob("*") if path.is_file()]
        assert sorted(path.name for path in pictures) == [
            f"{name}.{figures}" for name in ("all_frames", "clip3", "clip7")
        ]
        assert all(path.read_bytes().startswith(begins) for path in pictures)

    def test_what_it_was_made_of(self, trained, small, evaluate, tmp_path):
        """In the report, and beside the files that have no place for it."""
        words = ("--smooth", "ma:5", "--out", tmp_path / "out")
        made = evaluate(trained, *words)["made"]
        assert made["command"].startswith(f"avfuse evaluate --run {trained} --json --device cpu --smooth ma:5")
        assert made["avfuse"] == __version__
        assert (made["runs"], made["store"]) == ([str(trained)], str(small.store))
        assert (made["annotations"], made["smoothing"], made["UNTRAINED"]) == (str(small.annotations), "ma:5", [])
        assert made["labels_sha256"] != read_description(trained).labels_sha256  # the training trials' are not in it
        beside = json.loads((tmp_path / "out" / "made.json").read_text())
        assert beside["made"] == json.loads((tmp_path / "out" / "report.json").read_text())["made"]
        assert {"report.json", "predictions/clip3.txt", "plots/all_frames.png"} < set(beside["files"])

    def test_out_of_an_earlier_evaluation_is_replaced_whole(self, trained, corpus, evaluate, avfuse, tmp_path):
        """Files of a trial that is no longer there do not stay."""
        out = tmp_path / "out"
        evaluate(trained, "--out", out)
        FeatureStore(corpus.store, mode="a").remove("clip7")
        result = avfuse("evaluate", "--run", trained, "--store", corpus.store, "--out", out)
        assert result.exit_code == 0
        assert f"note: the earlier results in {out} are replaced" in result.stderr
        assert [path.stem for path in (out / "predictions").iterdir()] == ["clip3"]
        assert [path.stem for path in (out / "plots" / "predictions").iterdir()] == ["clip3"]
        assert json.loads((out / "report.json").read_text())["trials"] == 1

    def test_what_fails_leaves_the_earlier_evaluation(self, trained, corpus, evaluate, avfuse, tmp_path):
        out = tmp_path / "out"
        evaluate(trained, "--out", out)
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        corpus.labels("clip7").unlink()
        refused(avfuse("evaluate", "--run", trained, "--annotations", corpus.annotations, "--out", out))
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before

    def test_smoothed(self, trained, evaluate, tmp_path):
        report = evaluate(trained, "--smooth", "savgol:7,11", "--out", tmp_path)
        for name in ("clip3", "clip7"):
            raw = rows_of(trained / "predictions" / f"{name}.txt")
            found = rows_of(tmp_path / "predictions" / f"{name}.txt")
            assert found == pytest.approx(smooth(raw, parse_smoothing("savgol:7,11")).clip(-1, 1), abs=2e-6)
        assert report["P"] != read_metrics(trained)["P"]

    def test_wrong_smoothing(self, trained, avfuse):
        assert "median:5" in refused(avfuse("evaluate", "--run", trained, "--smooth", "median:5"))

    def test_from_another_folder(self, corpus, fit, evaluate, tmp_path, monkeypatch):
        """Store and annotations are found again although they were named relative to where the run was trained."""
        monkeypatch.chdir(tmp_path)
        relative = type(corpus)(Path("corpus/features.zarr"), Path("corpus/annotations"))
        fit(relative, "run", "--epochs", 1)
        monkeypatch.chdir("/")
        assert evaluate(tmp_path / "run")["P"] == pytest.approx(read_metrics(tmp_path / "run")["P"], abs=1e-6)

    def test_store_and_annotations_have_moved(self, corpus, fit, evaluate, avfuse, tmp_path):
        fit(corpus, tmp_path / "run", "--epochs", 1)
        corpus.store.parent.rename(tmp_path / "moved")
        assert "features.zarr is not an avfuse store" in refused(avfuse("evaluate", "--run", tmp_path / "run"))
        store = ("--store", tmp_path / "moved" / "features.zarr")
        assert "annotations" in refused(avfuse("evaluate", "--run", tmp_path / "run", *store))
        report = evaluate(tmp_path / "run", *store, "--annotations", tmp_path / "moved" / "annotations")
        assert report["P"] == pytest.approx(read_metrics(tmp_path / "run")["P"], abs=1e-6)

    def test_other_labels(self, trained, corpus, evaluate):
        """The scores are against the labels that are named."""
        for name in ("clip3", "clip7"):
            np.savetxt(
                corpus.labels(name),
                rows_of(trained / "predictions" / f"{name}.txt"),
                "%.6f",
                ",",
                header="valence,arousal",
                comments="",
            )
        assert evaluate(trained, "--annotations", corpus.annotations)["P"] == pytest.approx(1, abs=1e-6)

    def test_what_has_changed_since_is_told(self, corpus, fit, avfuse, tmp_path):
        fit(corpus, tmp_path / "run", "--epochs", 1)
        assert avfuse("evaluate", "--run", tmp_path / "run").stderr == ""
        header, *rows = corpus.labels("clip3").read_text().splitlines()
        corpus.labels("clip3").write_text("\n".join([header, *reversed(rows)]))
        corpus.rewrite("clip7", voice=corpus.rows("clip7")["voice"] * 2)
        lines = avfuse("evaluate", "--run", tmp_path / "run").stderr.splitlines()
        since = "have changed since the runs were trained; scored as they are now"
        assert lines == [f"note: labels of clip3 {since}", f"note: features of clip7 {since}"]

    def test_labels_without_the_trials(self, trained, corpus, avfuse):
        corpus.labels("clip7").unlink()
        message = refused(avfuse("evaluate", "--run", trained, "--annotations", corpus.annotations))
        assert "has no labels of clip7" in message

    def test_features_of_one_trial_are_gone(self, trained, corpus, avfuse):
        FeatureStore(corpus.store, mode="a").remove("clip7")
        result = avfuse("evaluate", "--run", trained, "--store", corpus.store, "--json")
        assert result.exit_code == 0
        assert result.stderr == "note: no features of clip7; the scores are without them\n"
        assert [trial["trial"] for trial in json.loads(result.stdout)["by_trial"]] == ["clip3"]

    def test_features_of_all_trials_are_gone(self, trained, corpus, avfuse):
        for name in ("clip3", "clip7"):
            corpus.rewrite(name, voice=None, voice_valid=None)
        message = refused(avfuse("evaluate", "--run", trained, "--store", corpus.store))
        assert "no trial with the features of the runs" in message

    def test_features_of_other_weights(self, trained, corpus, avfuse, evaluate):
        corpus.rewrite("clip7", fingerprint="0123456789abcdef")
        message = refused(avfuse("evaluate", "--run", trained, "--store", corpus.store))
        assert "planted" in message
        assert "0123456789ab (1 trial)" in message
        assert "--allow-other-features" in message
        report = evaluate(trained, "--store", corpus.store, "--allow-other-features")
        assert report["P"] == pytest.approx(read_metrics(trained)["P"], abs=1e-6)

    def test_settings_that_differ_are_named(self, corpus, fit, avfuse, tmp_path):
        for number in range(8):
            FeatureStore(corpus.store, mode="a").write(
                f"clip{number}", corpus.rows(f"clip{number}"), {"fingerprint": "f32", "settings": {"precision": "fp32"}}
            )
        fit(corpus, tmp_path / "run", "--epochs", 1)
        FeatureStore(corpus.store, mode="a").write(
            "clip7", corpus.rows("clip7"), {"fingerprint": "f16", "settings": {"precision": "fp16"}}
        )
        message = refused(avfuse("evaluate", "--run", tmp_path / "run"))
        assert "(precision: fp32 in the run, fp16 in the store)" in message

    def test_the_feature_that_differs_is_named_and_others_do_not_matter(self, corpus, fit, avfuse, tmp_path):
        store = FeatureStore(corpus.store, mode="a")

        def made(**fingerprints):
            return {"features": {name: {"fingerprint": value} for name, value in fingerprints.items()}}

        for number in range(8):
            store.write(f"clip{number}", corpus.rows(f"clip{number}"), made(face="f", voice="v"))
        fit(corpus, tmp_path / "run", "--epochs", 1)
        third = {"third": np.ones((120, 3), np.float32), "third_valid": np.ones(120, bool)}
        rows = store["clip7"].rows
        store.add("clip7", {name: np.resize(values, (rows, *values.shape[1:])) for name, values in third.items()}, {})
        assert avfuse("evaluate", "--run", tmp_path / "run").exit_code == 0
        store.write("clip7", corpus.rows("clip7"), made(face="f", voice="another"))
        message = refused(avfuse("evaluate", "--run", tmp_path / "run"))
        assert "has learned from voice v, but" in message
        assert "holds another (1 trial)" in message
        assert "face" not in message

    def test_features_of_other_weights_that_the_run_does_not_hold_out(self, trained, corpus, evaluate):
        corpus.rewrite("clip0", fingerprint="0123456789abcdef")
        assert evaluate(trained, "--store", corpus.store)["trials"] == 2

    def test_runs_of_different_stores(self, trained, corpus, fit, avfuse, tmp_path):
        fit(corpus, tmp_path / "run", "--epochs", 1)
        message = refused(avfuse("evaluate", "--run", trained, "--run", tmp_path / "run"))
        assert "name one by --store" in message

    def test_no_run(self, avfuse, tmp_path):
        assert f"{tmp_path} does not hold a run" in refused(avfuse("evaluate", "--run", tmp_path))


def test_weights_that_were_tuned_on_what_is_scored(plant_small, fit, avfuse, tmp_path):
    """Training warns, evaluating refuses, and what is scored nevertheless says so."""
    tuned = {"voice": {"name": "w", "sha256": "0" * 64, "tuning": {"trials": ["clip0", "elsewhere/clip3"]}}}
    corpus, out = plant_small(tmp_path / "corpus", weights=tuned), tmp_path / "run"
    line = "voice of 1 validation trial (clip3) come from weights that it was tuned on"
    trained = fit(corpus, out, "--epochs", 1)
    assert f"note: fold 0: {line}: its scores say nothing" in trained.stderr.splitlines()
    assert json.loads((out / "features.json").read_text())["tuned"] == {"voice": {"planted": tuned["voice"]["tuning"]}}
    assert read_description(out).features.leaks(["clip3", "clip7"]) == {"voice": ["clip3"]}
    message = refused(avfuse("evaluate", "--run", out))
    assert "voice of 1 trial (clip3) come from weights that it was tuned on" in message
    assert message.endswith("with weights that were tuned on other trials, or give --allow-leak")
    allowed = avfuse("evaluate", "--run", out, "--allow-leak", "--json", "--out", tmp_path / "scores")
    assert allowed.exit_code == 0
    assert allowed.stderr.startswith("LEAK: voice of 1 trial (clip3)")
    assert json.loads(allowed.stdout)["made"]["LEAK"] == {"voice": ["clip3"]}
    assert avfuse("predict", "--run", out, "--store", corpus.store, "--out", tmp_path / "p").exit_code == 0
    # Over several seeds the table says it too.
    fit(corpus, tmp_path / "runs", "--epochs", 1, "--seeds", 2)
    assert (
        f"LEAK: {line}: these scores say nothing about new trials" in (tmp_path / "runs" / "crossval.txt").read_text()
    )


def test_weights_that_a_tuned_run_began_from(trained, tmp_path):
    """What its base was tuned on cannot test it either; its own training trials are those of its fold."""
    described = read_description(trained)
    config = replace(described.config, modalities=("iresnet50", "voice"), finetune=FinetuneConfig(audio="none"))
    line = "iresnet50 of 1 validation trial (clip3) come from weights that it was tuned on"
    for base, known in (({"tuning": {"trials": ["clip3"]}}, {"iresnet50": ["clip3"]}), ({}, {}), (None, {})):
        said = json.dumps({"trials": ["clip0", "clip7"], "base": base})
        save_file({"a": torch.zeros(1)}, tmp_path / "iresnet50.safetensors", {KEY: said})
        assert leaks_of_base(tmp_path, config, ["clip3", "clip7"]) == known
        fold = Fold(0, ("clip0",), ("clip3", "clip7"))
        said_of_table = leak_of({tmp_path: replace(described, config=config, fold=fold)})
        assert said_of_table == (f"{line}: these scores say nothing about new trials" if known else "")


def test_weights_that_were_tuned_on_other_trials(plant_small, fit, avfuse, tmp_path):
    tuned = {"voice": {"name": "w", "sha256": "0" * 64, "tuning": {"trials": ["clip0", "clip1"]}}}
    corpus, out = plant_small(tmp_path / "corpus", weights=tuned), tmp_path / "run"
    assert "come from weights" not in fit(corpus, out, "--epochs", 1).stderr
    assert read_description(out).features.tuned == {"voice": {"planted": tuned["voice"]["tuning"]}}
    result = avfuse("evaluate", "--run", out)
    assert (result.exit_code, result.stderr) == (0, "")


def test_untrained_features_are_told_of(plant_small, fit, avfuse, tmp_path):
    """Every command says it, on stderr, and goes on."""
    corpus = plant_small(tmp_path, weights=UNTRAINED)
    loud = "UNTRAINED WEIGHTS: voice: for tests and demos only"
    trained = fit(corpus, tmp_path / "run", "--epochs", 1, "--json")
    evaluated = avfuse("evaluate", "--run", tmp_path / "run", "--json")
    predicted = avfuse("predict", "--run", tmp_path / "run", "--store", corpus.store, "--out", tmp_path / "o", "--json")
    for result in (trained, evaluated, predicted):
        assert result.exit_code == 0
        assert loud in result.stderr.splitlines()
        json.loads(result.stdout)
    assert json.loads((tmp_path / "run" / "features.json").read_text())["untrained"] == ["voice"]


class TestPredict:
    def test_every_trial_of_a_store(self, trained, corpus, avfuse, tmp_path):
        """Those that the run has learned from, too, and one that no labels are known of."""
        store = FeatureStore(corpus.store, mode="a")
        store.write(
            "batch1/new", {name: rows[:77] for name, rows in corpus.rows("clip7").items()}, {"fingerprint": "planted"}
        )
        result = avfuse("predict", "--run", trained, "--store", corpus.store, "--out", tmp_path / "out", "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout) == {"trials": 9, "columns": ["valence", "arousal"]}
        files = {
            path.relative_to(tmp_path / "out").with_suffix("").as_posix(): path
            for path in (tmp_path / "out").rglob("*.txt")
        }
        assert set(files) == {*(f"clip{number}" for number in range(8)), "batch1/new"}
        assert all(len(rows_of(path)) == store[name].rows for name, path in files.items())
        for name in ("clip3", "clip7"):
            expected = rows_of(trained / "predictions" / f"{name}.txt")
            assert rows_of(files[name]) == pytest.approx(expected, abs=2e-6)

    def test_what_is_predicted_does_not_depend_on_the_others(self, trained, corpus, avfuse, tmp_path):
        for number in (0, 1, 2, 4, 5, 6, 7):
            FeatureStore(corpus.store, mode="a").remove(f"clip{number}")
        result = avfuse("predict", "--run", trained, "--store", corpus.store, "--out", tmp_path / "out")
        assert result.exit_code == 0
        expected = rows_of(trained / "predictions" / "clip3.txt")
        assert rows_of(tmp_path / "out" / "clip3.txt") == pytest.approx(expected, abs=2e-6)

    def test_trials_without_the_features(self, trained, corpus, avfuse, tmp_path):
        corpus.rewrite("clip1", voice=None, voice_valid=None)
        result = avfuse("predict", "--run", trained, "--store", corpus.store, "--out", tmp_path / "out")
        assert result.exit_code == 0
        assert "note: left out, since they do not have all of face, voice: clip1" in result.stderr.splitlines()
        assert len(list((tmp_path / "out").glob("*.txt"))) == 7

    def test_times_and_rows_that_are_real(self, trained, corpus, avfuse, tmp_path):
        """A row is valid where one of the run's features is real; times are the store's, whatever they are."""
        rows = corpus.rows("clip3")
        face, voice = rows["face_valid"].copy(), rows["voice_valid"].copy()
        face[:30], voice[20:40] = False, False
        time_s = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.06, len(face)))
        corpus.rewrite("clip3", face_valid=face, voice_valid=voice, time=time_s)
        result = avfuse("predict", "--run", trained, "--store", corpus.store, "--out", tmp_path / "out")
        assert result.exit_code == 0, result.stderr
        path = tmp_path / "out" / "clip3.txt"
        assert path.read_text().splitlines()[0] == "time_s,valence,arousal,valid"
        found = np.loadtxt(path, delimiter=",", skiprows=1)
        assert found[:, 0] == pytest.approx(time_s, abs=1e-6)
        assert np.flatnonzero(found[:, 3] == 0).tolist() == [*range(20, 30)]

    def test_what_it_was_made_of(self, trained, small, avfuse, tmp_path):
        out = tmp_path / "out"
        words = ("--run", trained, "--store", small.store, "--out", out, "--smooth", "ma:5")
        assert avfuse("predict", *words).exit_code == 0
        content = json.loads((out / "made.json").read_text())
        assert sorted(content["files"]) == [f"clip{number}.txt" for number in range(8)]
        made = content["made"]
        assert (made["runs"], made["store"], made["smoothing"]) == ([str(trained)], str(small.store), "ma:5")
        assert made["command"] == f"avfuse predict --run {trained} --store {small.store} --out {out} --smooth ma:5"
        assert made["fingerprints"] == {"face": {"planted": 8}, "voice": {"planted": 8}}

    def test_out_of_an_earlier_prediction_is_replaced_whole(self, trained, corpus, avfuse, tmp_path):
        words = ("--run", trained, "--store", corpus.store, "--out", tmp_path / "out")
        assert avfuse("predict", *words).exit_code == 0
        FeatureStore(corpus.store, mode="a").remove("clip7")
        assert "8 files" in avfuse("predict", *words).stderr
        assert {path.stem for path in (tmp_path / "out").glob("*.txt")} == {f"clip{number}" for number in range(7)}

    def test_no_trial_has_the_features(self, trained, corpus, avfuse, tmp_path):
        for number in range(8):
            corpus.rewrite(f"clip{number}", face=None, face_valid=None)
        message = refused(avfuse("predict", "--run", trained, "--store", corpus.store, "--out", tmp_path / "out"))
        assert "no trial with the features" in message
        assert not (tmp_path / "out").exists()

    def test_smoothed(self, trained, small, avfuse, tmp_path):
        words = ("--run", trained, "--store", small.store, "--out", tmp_path, "--smooth", "ma:5")
        assert avfuse("predict", *words).exit_code == 0
        raw = rows_of(trained / "predictions" / "clip3.txt")
        assert rows_of(tmp_path / "clip3.txt") == pytest.approx(smooth(raw, parse_smoothing("ma:5")), abs=2e-6)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ((), "name --out, or --submission and --sample"),
            (("--submission", "s.txt"), "--submission and --sample go together"),
            (("--sample", "s.txt", "--out", "o"), "--submission and --sample go together"),
        ],
    )
    def test_wrong_usage(self, trained, small, avfuse, words, message):
        result = avfuse("predict", "--run", trained, "--store", small.store, *words)
        assert result.exit_code == 2
        assert message in result.stderr


def test_one_naming_of_trials(small, fit, evaluate, avfuse, tmp_path):
    """The labels know the last part of a name; run, report, table, predictions and plots all say the store's."""
    store = FeatureStore(tmp_path / "deep.zarr", mode="a")
    for number in range(8):
        store.write(f"batch{number % 3}/clip{number}", small.rows(f"clip{number}"), {"fingerprint": "planted"})
    corpus = type(small)(tmp_path / "deep.zarr", small.annotations)
    fit(corpus, tmp_path / "run", "--epochs", 1, "--plots")
    report = evaluate(tmp_path / "run", "--out", tmp_path / "report")
    predicted = avfuse("predict", "--run", tmp_path / "run", "--store", corpus.store, "--out", tmp_path / "predicted")
    assert predicted.exit_code == 0
    held_out = {"batch0/clip3", "batch1/clip7"}
    fold = json.loads((tmp_path / "run/fold.json").read_text())
    assert set(fold["validation"]) == held_out
    assert {trial["trial"] for trial in report["by_trial"]} == held_out
    places = ("run/predictions", "run/plots/predictions", "report/predictions", "report/plots/predictions")
    for place in places:
        found = [path.relative_to(tmp_path / place) for path in (tmp_path / place).rglob("*.*")]
        assert {path.with_suffix("").as_posix() for path in found} == held_out
    found = [path.relative_to(tmp_path / "predicted") for path in (tmp_path / "predicted").rglob("*.txt")]
    assert {path.with_suffix("").as_posix() for path in found} == {*fold["train"], *fold["validation"]}
    # A store without the folders is another naming of the same trials.
    assert evaluate(tmp_path / "run", "--store", small.store)["P"] == pytest.approx(report["P"], abs=1e-6)


ROWS = {"clip3": 115, "clip7": 135}


class TestSubmission:
    @pytest.fixture
    def submit(self, trained, small, avfuse, tmp_path):
        """Write a submission for trials of these lengths; returns the result and the sample's locations."""

        def run(lengths, *words, run=trained):
            rng = np.random.default_rng(0)
            locations = [f"{name}/{row + 1:05d}.jpg" for name, count in lengths.items() for row in range(count)]
            locations = [locations[at] for at in rng.permutation(len(locations))]
            (tmp_path / "sample.txt").write_text(
                "\n".join(["image_location,valence,arousal", *(f"{at},0,0" for at in locations)])
            )
            files = ("--submission", tmp_path / "mine.txt", "--sample", tmp_path / "sample.txt")
            return avfuse("predict", "--run", run, "--store", small.store, *files, *words), locations

        return run

    def lines_of(self, tmp_path):
        header, *lines = (tmp_path / "mine.txt").read_text().splitlines()
        assert header == "image_location,valence,arousal"
        return [line.split(",") for line in lines]

    def test_rows_and_order_are_the_sample_s(self, submit, trained, tmp_path):
        result, locations = submit(ROWS, "--json")
        assert result.exit_code == 0, result.stderr
        assert [line[0] for line in self.lines_of(tmp_path)] == locations
        expected = {name: rows_of(trained / "predictions" / f"{name}.txt") for name in ROWS}
        for at, *pair in self.lines_of(tmp_path):
            name, number = at.removesuffix(".jpg").split("/")
            assert [*map(float, pair)] == pytest.approx(expected[name][int(number) - 1], abs=2e-6)
        assert json.loads(result.stdout) == {
            "trials": 8, "columns": ["valence", "arousal"], "rows": 250, "padded": {}, "trimmed": {},
        }  # fmt: skip

    def test_what_it_was_made_of_lies_beside_it(self, submit, trained, small, tmp_path):
        submit(ROWS, "--smooth", "ma:5")
        content = json.loads((tmp_path / "mine.txt.made.json").read_text())
        assert content["sha256"] == hashlib.sha256((tmp_path / "mine.txt").read_bytes()).hexdigest()
        made = content["made"]
        assert (made["runs"], made["smoothing"], made["store"]) == ([str(trained)], "ma:5", str(small.store))
        assert made["sample"] == str(tmp_path / "sample.txt")

    def test_an_earlier_one_is_replaced_and_nothing_else(self, submit, tmp_path):
        assert submit(ROWS)[0].exit_code == 0
        assert submit(ROWS, "--smooth", "ma:5")[0].exit_code == 0
        (tmp_path / "mine.txt").write_text("image_location,valence,arousal\nchanged by hand")
        assert "is not as avfuse wrote it" in refused(submit(ROWS)[0])
        assert "changed by hand" in (tmp_path / "mine.txt").read_text()

    def test_a_row_or_two_more_or_less(self, submit, trained, tmp_path):
        result, _ = submit({"clip3": 116, "clip7": 133})
        assert result.exit_code == 0
        assert "last row repeated: clip3 (+1)" in result.stderr
        assert "rows left out at the end: clip7 (-2)" in result.stderr
        found = {at: pair for at, *pair in self.lines_of(tmp_path)}
        assert found["clip3/00116.jpg"] == found["clip3/00115.jpg"]
        assert len(found) == 116 + 133

    @pytest.mark.parametrize("rows", [112, 118])
    def test_three_more_or_less(self, submit, tmp_path, rows):
        result, _ = submit({"clip3": rows, "clip7": 135})
        assert f"clip3 (115 rows, {rows} in the sample)" in refused(result)
        assert "clip7" not in result.stderr.splitlines()[-1]
        assert not (tmp_path / "mine.txt").exists()
        result, locations = submit({"clip3": rows, "clip7": 135}, "--allow-length-difference")
        assert result.exit_code == 0
        assert [line[0] for line in self.lines_of(tmp_path)] == locations

    def test_a_trial_that_the_store_has_not(self, submit, tmp_path):
        result, _ = submit({"clip3": 115, "missing": 10})
        assert "missing" in refused(result)
        assert not (tmp_path / "mine.txt").exists()

    def test_one_task_is_not_enough(self, submit, small, fit, tmp_path):
        fit(small, tmp_path / "run", "--task", "arousal", "--epochs", 1)
        result, _ = submit(ROWS, run=tmp_path / "run")
        assert "a submission needs valence and arousal, the runs predict arousal" in refused(result)
        assert not (tmp_path / "mine.txt").exists()
