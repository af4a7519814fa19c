"""What a report says of runs is what the runs say: their own predictions, scores, comparisons."""

import json
import shutil

import numpy as np
import pytest

from avfuse.apps.report.systems import HELD_OUT, LEARNED, TUNED, UNSEEN, open_systems, runs_page
from avfuse.apps.report.truth import open_truth
from avfuse.features_store.schema import JsonValue
from avfuse.features_store.store import FeatureStore
from avfuse.fusion.results.prediction_files import read_prediction


@pytest.fixture
def opened(corpus):
    """Open the corpus's run as a system."""

    def make(folders=(corpus.run,), seen=False, allow=False, annotations=None):
        return open_systems(list(folders), FeatureStore(corpus.store), annotations, "cpu", seen, allow)

    return make


def test_a_trial_that_is_held_out_has_the_runs_own_predictions_and_score(corpus, opened, avfuse):
    (system,) = opened()
    store = FeatureStore(corpus.store)
    said = system.say(store["clip3"], system.truth.of(store["clip3"]))
    assert said.how == HELD_OUT
    _, written = read_prediction(corpus.run / "predictions" / "clip3.txt")
    assert np.abs(said.values - written).max() < 1e-6
    result = avfuse("evaluate", "--run", corpus.run, "--json", "--device", "cpu")
    known = {each["trial"]: each for each in json.loads(result.stdout)["by_trial"]}
    assert said.scores["ccc_valence"] == pytest.approx(known["clip3"]["valence"], abs=1e-5)
    assert said.scores["ccc_arousal"] == pytest.approx(known["clip3"]["arousal"], abs=1e-5)


def test_what_a_run_has_learned_from_is_left_out_unless_it_is_asked_for(corpus, opened):
    store = FeatureStore(corpus.store)
    assert opened()[0].say(store["clip0"]) is None
    said = opened(seen=True)[0].say(store["clip0"])
    assert said.how == LEARNED
    assert said.values.shape == (100, 2)


def test_a_trial_that_weights_were_tuned_on_is_left_out_too(corpus, tmp_path):
    shutil.copytree(corpus.store, tmp_path / "s.zarr")
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    arrays = {name: np.asarray(array[:]) for name, array in store["clip3"].items()}
    tuned: JsonValue = {"fingerprint": "planted", "weights": {"name": "mine", "tuning": {"trials": ["clip3", "clip9"]}}}
    store.write(
        "clip3", arrays, {"fingerprint": "planted", "features": {"face": tuned, "voice": {"fingerprint": "planted"}}}
    )

    def said(seen):
        return open_systems([corpus.run], store, None, "cpu", seen, True)[0].say(store["clip3"])

    assert said(False) is None
    assert said(True).how == TUNED


def test_networks_say_of_unseen_trials_what_predict_writes(corpus, opened, avfuse, tmp_path):
    said = opened()[0].say(FeatureStore(corpus.store)["talk"])
    assert (said.how, dict(said.scores)) == (UNSEEN, {})
    words = ("predict", "--run", corpus.run, "--store", corpus.store, "--out", tmp_path / "p", "--device", "cpu")
    assert avfuse(*words).exit_code == 0
    _, written = read_prediction(tmp_path / "p" / "talk.txt")
    assert np.abs(said.values - written).max() < 1e-5


def test_predictions_of_other_features_are_made_anew_or_refused(corpus, opened, tmp_path):
    shutil.copytree(corpus.store, tmp_path / "s.zarr")
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    arrays = {name: np.asarray(array[:]) for name, array in store["clip3"].items()}
    store.write("clip3", {**arrays, "face": arrays["face"] * 2}, {"fingerprint": "another"})

    def system(allow):
        return open_systems([corpus.run], store, None, "cpu", False, allow)[0]

    with pytest.raises(ValueError, match="--allow-other-features"):
        system(False).say(store["clip3"])
    _, written = read_prediction(corpus.run / "predictions" / "clip3.txt")
    assert np.abs(system(True).say(store["clip3"]).values - written).max() > 1e-3


def test_a_trial_without_the_features_has_no_prediction(corpus, opened, tmp_path):
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    store.write("other", {"time": np.arange(5.0)}, {})
    (system,) = open_systems([corpus.run], store, None, "cpu", False, False)
    assert system.say(store["other"]) is None


def test_systems_are_named_by_what_tells_them_apart(corpus, opened, tmp_path):
    for place in ("a/run", "b/run", "c/last"):
        shutil.copytree(corpus.run, tmp_path / place)
    systems = opened([tmp_path / place for place in ("a/run", "b/run", "c/last")])
    assert [system.name for system in systems] == ["a/run", "b/run", "last"]
    with pytest.raises(ValueError, match="at most 12"):
        opened([shutil.copytree(corpus.run, tmp_path / "many" / str(n)) for n in range(13)])


def test_a_comparison_is_a_system_a_cell(corpus, opened, tmp_path):
    for cell in ("one", "two"):
        shutil.copytree(corpus.run, tmp_path / "of" / cell / "fold0" / "seed0")
    runs = [{"cell": cell, "folder": f"{cell}/fold0/seed0"} for cell in ("one", "two")]
    runs.append({"cell": "s4-window/one", "folder": "s4-window/one/fold0/seed0"})
    content = {
        "cells": [{"cell": "one", "mean": {"P": 0.1, "ccc_valence": 0.2, "z": 0.3}}],
        "runs": runs,
        "warnings": ["few"],
    }
    (tmp_path / "of" / "compare.json").write_text(json.dumps(content))
    systems = opened([tmp_path / "of"])
    assert [system.name for system in systems] == ["one", "two"]
    page = runs_page(systems, [tmp_path / "of"])
    assert page["comparisons"][0]["scores"] == {"P": "P", "ccc_valence": "CCC valence"}
    assert [each["name"] for each in page["systems"]] == ["one", "two"]
    (run,) = page["systems"][0]["runs"]
    assert run["curves"]["epoch"] == [1.0, 2.0, 3.0]
    assert run["scores"]["P"] == pytest.approx(json.loads((corpus.run / "metrics.json").read_text())["P"])
    assert run["finished"]
    assert [(each["ended"], each["mean"]["P"], each["sd"]) for each in page["systems"]] == [
        (1, run["scores"]["P"], {}), (1, run["scores"]["P"], {})
    ]  # fmt: skip
    assert page["titles"] == ["P", "CCC valence", "CCC arousal"]


def test_labels_that_several_trials_could_mean_are_nobodys(corpus, tmp_path):
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    for name in ("a/clip0", "b/clip0", "clip1", "a/clip2"):
        store.write(name, {"time": np.arange(100) / 25}, {})
    truth = open_truth(corpus.annotations, None, store)
    assert truth is not None
    found = {name: labels for name in store.trials() if (labels := truth.of(store[name])) is not None}
    assert list(found) == ["a/clip2", "clip1"]
    assert len(found["clip1"].labels) == len(found["clip1"].time_s) == 105


def test_labels_that_the_store_remembers_are_found_while_they_are_there(corpus, tmp_path):
    store = FeatureStore(corpus.store)
    truth = open_truth(None, str(corpus.annotations), store)
    assert truth is not None
    labels = truth.of(store["clip3"])
    assert labels is not None
    assert labels.labelled.sum() == 105
    assert open_truth(None, str(tmp_path / "gone"), store) is None
    with pytest.raises((ValueError, OSError)):
        open_truth(tmp_path / "gone", None, store)
