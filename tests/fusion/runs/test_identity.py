"""A finished run, or one to go on with, is "done" only for the settings, trials, labels and features it was made of."""

import json
import shutil

import numpy as np
import pytest

from avfuse.features_store.schema import JsonValue
from avfuse.features_store.store import FeatureStore
from avfuse.fusion.artifacts.state import read_metrics


@pytest.fixture
def corpus(small, tmp_path):
    """A copy of the corpus of `trained` and `grid`, to be changed."""
    shutil.copytree(small.store, tmp_path / "features.zarr")
    shutil.copytree(small.annotations, tmp_path / "annotations")
    return type(small)(tmp_path / "features.zarr", tmp_path / "annotations")


@pytest.fixture
def run(trained, tmp_path):
    """A finished run, to be changed."""
    return shutil.copytree(trained, tmp_path / "run")


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def relabel(corpus, trial):
    """Other numbers, the same rows."""
    header, *rows = corpus.labels(trial).read_text().splitlines()
    corpus.labels(trial).write_text("\n".join([header, *reversed(rows), ""]))


def move_to_validation(corpus, trial):
    path = corpus.labels(trial)
    path.rename(path.parents[1] / "Validation_Set" / path.name)


def film_again(corpus, trial):
    """The same settings and another video: other rows."""
    corpus.rewrite(trial, voice=corpus.rows(trial)["voice"] + np.float32(1))


def extract_otherwise(corpus, trial):
    store = FeatureStore(corpus.store, mode="a")
    for name in store.trials():
        made: dict[str, JsonValue] = {"settings": {"face": "left"}, "weights": {"voice": {"sha256": "ab12"}}}
        store.write(name, corpus.rows(name), {"fingerprint": "another", **made})


CHANGES = [
    pytest.param(relabel, "clip2", "other labels", "labels of clip2: sha256 ", id="labels"),
    pytest.param(relabel, "clip7", "other labels", "labels of clip7: sha256 ", id="labels held out"),
    pytest.param(
        move_to_validation,
        "clip2",
        "other trials",
        "training trials: 6 in the run, 5 now (only in the run: clip2); validation trials: 2 in the run, 3 now "
        "(only now: clip2)",
        id="fold",
    ),
    pytest.param(film_again, "clip2", "other features", "features of clip2, extracted again since: sha256 ", id="rows"),
    pytest.param(
        extract_otherwise,
        "clip2",
        "other features",
        "face: not recorded in the run, left now, weights: not recorded in the run, ab12 now",
        id="making",
    ),
]


@pytest.mark.parametrize(("change", "trial", "what", "message"), CHANGES)
@pytest.mark.parametrize("state", ["finished", "finished, to go on", "stopped"])
def test_a_lone_run_on_other_data(corpus, run, avfuse, train_words, change, trial, what, message, state):
    """Refused in one line that says what differs; the run is left as it was."""
    change(corpus, trial)
    words = {"finished": ("--json",), "finished, to go on": ("--resume", "--epochs", 5), "stopped": ("--resume",)}
    if state == "stopped":
        (run / "finished.json").unlink()
    before = contents(run)
    result = avfuse(*train_words(corpus, run, *words[state]))
    assert result.exit_code == 1
    assert result.stdout == ""
    line = result.stderr.splitlines()[-1]
    assert line.startswith(f"Error: {run} was trained on {what} than there are now (")
    assert message in line
    assert line.endswith("--replace trains anew, or name another --out")
    assert ("--allow-other-features" in line) == (what == "other features")
    assert contents(run) == before


@pytest.mark.parametrize(("change", "trial", "what", "message"), CHANGES)
def test_a_grid_on_other_data(corpus, grid, tmp_path, avfuse, train_words, change, trial, what, message):
    """No run of twelve is returned as if it were of these data, nor summed up again."""
    runs = shutil.copytree(grid, tmp_path / "runs")
    change(corpus, trial)
    before = contents(runs)
    result = avfuse(*train_words(corpus, runs, "--fold", "all", "--seeds", 2, "--epochs", 2))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert what in result.stderr.splitlines()[-1]
    assert "more of these runs; " in result.stderr.splitlines()[-1]
    assert contents(runs) == before


def test_the_sha256_of_that_trial_is_named(corpus, run, avfuse, train_words):
    seen = json.loads((run / "fold.json").read_text())["labels"]["clip2"][:12]
    relabel(corpus, "clip2")
    assert f"labels of clip2: sha256 {seen} in the run, " in avfuse(*train_words(corpus, run)).stderr


@pytest.mark.parametrize(
    ("seeds", "message"),
    [(2, "and so was 1 more of these"), pytest.param(3, "and so were 2 more of these", marks=pytest.mark.slow)],
)
def test_how_many_more_are_so(corpus, fit, avfuse, train_words, tmp_path, seeds, message):
    words = ("--seeds", seeds, "--epochs", 1)
    fit(corpus, tmp_path / "runs", *words)
    relabel(corpus, "clip2")
    assert message in avfuse(*train_words(corpus, tmp_path / "runs", *words)).stderr


def test_the_same_data_elsewhere(corpus, run, fit, tmp_path):
    """A corpus that was copied is the same corpus."""
    before = contents(run)
    assert "0 runs to do, 1 done before" in fit(corpus, run).stderr
    assert contents(run) == before


@pytest.mark.parametrize("missing", ["store", "annotations"])
def test_without_the_data_nothing_can_be_said(corpus, run, avfuse, train_words, missing):
    shutil.rmtree(getattr(corpus, missing))
    result = avfuse(*train_words(corpus, run, "--json"))
    assert result.exit_code == 1
    assert result.stdout == ""


def test_trials_that_have_come_since(corpus, run, avfuse, train_words):
    """Features of a trial that had none when the run was trained belong to its fold."""
    store, rows = FeatureStore(corpus.store, mode="a"), corpus.rows("clip7")
    store.remove("clip7")
    words = train_words(corpus, run, "--epochs", 1, "--out", run.with_name("less"))
    assert avfuse(*words).exit_code == 0
    store.write("clip7", rows, {"fingerprint": "planted"})
    result = avfuse(*words)
    assert result.exit_code == 1
    assert "validation trials: 1 in the run, 2 now (only now: clip7)" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("words", [("--precision", "bf16"), ("--compile",)])
def test_what_changes_more_than_rounding(corpus, run, avfuse, train_words, words):
    result = avfuse(*train_words(corpus, run, *words))
    assert result.exit_code == 1
    message = "precision: fp32 in the run, bf16 now" if "bf16" in words else "compiled: false in the run, true now"
    assert message in result.stderr.splitlines()[-1]


def test_other_features_that_are_allowed_are_named(corpus, run, fit):
    extract_otherwise(corpus, "clip2")
    result = fit(corpus, run, "--allow-other-features")
    assert f"note: {run} was trained on other features" in result.stderr


def test_a_run_of_an_older_version(corpus, run, fit, avfuse, train_words):
    """It recorded one sha256 of all labels, and no trial's features."""
    for name, key in (("fold.json", "labels"), ("features.json", "trials"), ("features.json", "made")):
        found = json.loads((run / name).read_text())
        del found[key]
        (run / name).write_text(json.dumps(found))
    assert "1 done before" in fit(corpus, run).stderr
    relabel(corpus, "clip2")
    result = avfuse(*train_words(corpus, run))
    assert result.exit_code == 1
    assert "(labels: sha256 " in result.stderr
    corpus.labels("clip2").write_text(corpus.labels("clip2").read_text())


class TestTheTable:
    WORDS = ("--fold", 3, "--seeds", 2, "--epochs", 2)

    def test_runs_of_other_labels_stay_out_of_it(self, corpus, grid, tmp_path, fit):
        """Labels of a fold that this call does not train have changed: its runs are named and not counted."""
        runs = shutil.copytree(grid, tmp_path / "runs")
        relabel(corpus, "clip2")
        shutil.rmtree(runs / "fold3")
        result = fit(corpus, runs, *self.WORDS)
        assert result.stderr.count("note: not in the table: ") == 10
        assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == ["fold", "3"]
        assert (runs / "crossval.csv").read_text().count("\n") == 3

    def test_another_call_that_trained_on_other_labels(self, corpus, grid, tmp_path, fit, monkeypatch):
        """It ends between this one's plan and its turn."""
        relabel(corpus, "clip2")
        out = tmp_path / "runs"

        def theirs(runs, resume, anew=()):
            monkeypatch.undo()
            shutil.copytree(grid / "fold3", out / "fold3")
            return list(runs)

        monkeypatch.setattr("avfuse.fusion.runs.call.pending_runs", theirs)
        with pytest.raises(AssertionError, match=r"2 of 2 runs failed: .* was trained on other labels"):
            fit(corpus, out, *self.WORDS)


class TestReplace:
    def test_a_lone_run(self, corpus, run, fit, same_run, tmp_path):
        """It is as if the folder had been empty, and a second call has nothing to do."""
        (run / "predictions" / "gone.txt").write_text("of an earlier run")
        relabel(corpus, "clip2")
        result = fit(corpus, run, "--replace")
        assert f"note: {run} was trained on other labels" in result.stderr
        assert "it is trained anew" in result.stderr
        fit(corpus, tmp_path / "new")
        same_run(run, tmp_path / "new")
        names = [{path.relative_to(at) for path in contents(at)} for at in (run, tmp_path / "new")]
        assert names[0] == names[1]
        before = contents(run)
        assert "0 runs to do, 1 done before" in fit(corpus, run, "--replace").stderr
        assert contents(run) == before

    def test_only_those_that_differ(self, corpus, grid, tmp_path, fit, same_run):
        runs = shutil.copytree(grid, tmp_path / "runs")
        FeatureStore(corpus.store, mode="a")
        words = ("--fold", 3, "--seeds", 2, "--epochs", 2)
        found = json.loads((runs / "fold3/seed1/fold.json").read_text())
        found["labels"]["clip2"] = "of other labels"
        (runs / "fold3/seed1/fold.json").write_text(json.dumps(found))
        (runs / "fold3/seed1/metrics.json").write_text(json.dumps({**read_metrics(runs / "fold3/seed1"), "P": 9}))
        result = fit(corpus, runs, *words, "--replace")
        assert "1 run to do, 1 done before" in result.stderr
        same_run(runs / "fold3/seed1", grid / "fold3/seed1")


def test_a_state_that_was_deleted_leaves_no_old_scores(corpus, run, fit, same_run, tmp_path):
    """The run begins anew: metrics and network of the old one, of an epoch of the same number, do not stay."""
    (run / "training.pt").unlink()
    (run / "finished.json").unlink()
    relabel(corpus, "clip2")
    fit(corpus, run, "--resume")
    fit(corpus, tmp_path / "new")
    same_run(run, tmp_path / "new")
