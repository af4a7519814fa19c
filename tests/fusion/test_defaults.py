"""What `train`, `evaluate`, `predict` and `folds` take where nothing is given, and what they say of it."""

import json
import os
import shutil

import pytest

from avfuse.features_store.records.provenance import inputs_of, record_inputs
from avfuse.features_store.store import FeatureStore
from avfuse.fusion.artifacts.folder import read_description
from avfuse.fusion.options import train_request
from avfuse.fusion.runs.crossval import latest_run

NO_STORE = "Error: features.zarr is not here; give --store, or run `avfuse extract --videos DIR` first"


def remember(corpus, annotations):
    """As `extract --annotations` leaves the store."""
    record_inputs(FeatureStore(corpus.store, mode="a").files, inputs_of(corpus.store, annotations, None, {}))


@pytest.fixture
def planted(plant_small, tmp_path, monkeypatch):
    """A working folder with a store that remembers its labels, which lie elsewhere."""
    corpus = plant_small(tmp_path / "here")
    labels = tmp_path / "my labels"
    corpus.annotations.rename(labels)
    remember(corpus, labels)
    monkeypatch.chdir(tmp_path / "here")
    return type(corpus)(corpus.store, labels)


@pytest.fixture
def train(avfuse, train_words, planted):
    """`train` without --store, --annotations and --out."""
    _, *words = train_words(planted, planted.store)
    assert words[0:6:2] == ["--store", "--annotations", "--out"]
    return lambda *more: avfuse("train", *words[6:], *more)


def said(result):
    return [line for line in result.stderr.splitlines() if line.startswith("note: --")]


class TestTrain:
    def test_each_default_is_said_and_taken(self, train, planted, tmp_path):
        result = train("--epochs", 1)
        assert result.exit_code == 0, result.stderr
        assert result.stderr.splitlines()[:3] == [
            "note: --store features.zarr",
            f"note: --annotations '{planted.annotations}' (remembered by features.zarr)",
            "note: --out runs/crossattn",
        ]
        described = read_description(tmp_path / "here/runs/crossattn")
        assert (described.features.store, described.annotations) == (str(planted.store), str(planted.annotations))
        assert result.stdout.splitlines()[-1].split()[0] == "0"

    def test_what_is_given_is_not_said(self, train, planted):
        result = train("--epochs", 1, "--store", planted.store, "--annotations", planted.annotations, "--out", "mine")
        assert (result.exit_code, said(result)) == (0, [])

    def test_the_preset_names_the_folder(self, train):
        result = train("--epochs", 1, "--preset", "su-zhang", "--json")
        assert json.loads(result.stdout)[0]["run"] == "runs/su-zhang"

    def test_a_settings_file_is_no_default(self, train, planted, tmp_path):
        (tmp_path / "c.yaml").write_text(f"store: {planted.store}\nout: {tmp_path / 'mine'}\nannotations:\n")
        result = train("--config", tmp_path / "c.yaml", "--epochs", 1)
        assert result.exit_code == 0, result.stderr
        assert said(result) == [f"note: --annotations '{planted.annotations}' (remembered by {planted.store})"]
        assert (tmp_path / "mine/finished.json").is_file()

    def test_parts_of_a_job_array_share_the_folder(self, train, tmp_path):
        for part in ("0/2", "1/2"):
            assert train("--seeds", 2, "--epochs", 1, "--shard", part).exit_code == 0
        runs = tmp_path / "here/runs/crossattn"
        assert len(json.loads((runs / "crossval.json").read_text())["made"]["runs"]) == 2

    @pytest.mark.slow
    def test_workers_know_the_defaults(self, train, tmp_path):
        result = train("--seeds", 2, "--epochs", 1, "--workers", 2)
        assert result.exit_code == 0, result.stderr
        assert len(said(result)) == 3
        assert len(list((tmp_path / "here/runs/crossattn").glob("fold0/seed*/finished.json"))) == 2

    def test_a_manifest_goes_with_the_remembered_labels(self, train, avfuse):
        assert avfuse("folds", "--out", "folds.json").exit_code == 0
        assert train("--manifest", "folds.json", "--fold", 5, "--epochs", 1).exit_code == 0

    def test_the_request_has_them(self, planted, capsys):
        given = ("store", "annotations", "out", "preset")
        with pytest.raises(TypeError, match="missing") as error:
            train_request(store=None, annotations=None, out=None, preset="concat")
        assert not any(f"'{name}'" in str(error.value) for name in given)
        assert capsys.readouterr().err.endswith("note: --out runs/concat\n")


class TestErrors:
    @pytest.mark.parametrize(
        "words", [("--fold", 0), ("--fold", 0, "--annotations", "labels", "--out", "run")], ids=len
    )
    def test_no_store_here(self, avfuse, words, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        result = avfuse("train", *words)
        assert (result.exit_code, result.stderr) == (1, f"{NO_STORE}\n")
        assert list(tmp_path.iterdir()) == []

    def test_what_is_here_is_not_a_store(self, avfuse, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "features.zarr").mkdir()
        result = avfuse("train", "--fold", 0)
        assert result.exit_code == 1
        assert "features.zarr is not an avfuse store" in result.stderr.splitlines()[-1]

    def test_no_labels_are_remembered(self, train, planted, plant_small, tmp_path):
        shutil.rmtree(planted.store)
        plant_small(tmp_path / "here")
        result = train()
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1] == (
            "Error: features.zarr remembers no folder of labels, since it was extracted without --annotations; "
            "give --annotations DIR"
        )
        assert train("--annotations", planted.annotations, "--epochs", 1).exit_code == 0

    def test_the_remembered_labels_are_gone(self, train, planted, avfuse):
        shutil.rmtree(planted.annotations)
        for result in (train(), avfuse("folds")):
            assert result.exit_code == 1
            assert result.stderr.splitlines()[-1] == (
                f"Error: {planted.annotations}, the folder of labels that features.zarr was extracted with, is no "
                "longer there; give --annotations DIR"
            )

    def test_a_fold_must_still_be_named(self, avfuse, planted):
        result = avfuse("train")
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, "Error: Missing option '--fold'.")


class TestFolds:
    def test_the_remembered_labels(self, avfuse, planted):
        result = avfuse("folds")
        assert result.stdout == avfuse("folds", "--annotations", planted.annotations).stdout
        assert result.stderr.startswith("note: --store features.zarr\nnote: --annotations ")

    def test_without_a_store(self, avfuse, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        result = avfuse("folds")
        assert result.exit_code == 1
        assert "features.zarr is not here; give --annotations, or run" in result.stderr


@pytest.fixture
def runs(planted, trained, grid, tmp_path):
    """A lone run that finished last, and the runs of a grid."""
    folder = tmp_path / "here/runs"
    shutil.copytree(trained, folder / "lone")
    shutil.copytree(grid, folder / "grid")
    finish(folder, 1_000)
    finish(folder / "lone", 2_000)
    return folder


def finish(folder, at_s):
    for path in folder.rglob("finished.json"):
        os.utime(path, (at_s, at_s))


class TestLatestRun:
    def test_the_last_to_finish(self, runs):
        assert latest_run(runs) == runs / "lone"

    def test_of_several_the_folder_of_all(self, runs):
        finish(runs / "grid/fold3/seed1", 3_000)
        assert latest_run(runs) == runs / "grid"
        assert latest_run(runs / "grid") == runs / "grid"

    def test_one_that_has_not_finished_does_not_count(self, runs):
        (runs / "lone/finished.json").unlink()
        assert latest_run(runs) == runs / "grid"

    def test_what_was_learned_from_pictures_is_no_run(self, runs):
        """`finetune --images` has a finished.json too, and nothing that could be evaluated."""
        (runs / "pictures").mkdir()
        (runs / "pictures/finished.json").write_text("{}")
        assert latest_run(runs) == runs / "lone"

    def test_a_lone_run_of_such_a_name(self, runs):
        (runs / "lone").rename(runs / "seed0")
        assert latest_run(runs) == runs / "seed0"

    def test_evaluate_takes_it_and_says_so(self, runs, avfuse):
        result = avfuse("evaluate", "--device", "cpu")
        assert result.exit_code == 0, result.stderr
        assert result.stderr.splitlines()[0] == "note: --run runs/lone"
        assert result.stdout == avfuse("evaluate", "--device", "cpu", "--run", runs / "lone").stdout
        finish(runs / "grid", 3_000)
        result = avfuse("evaluate", "--device", "cpu")
        assert result.stderr.splitlines()[:2] == ["note: --run runs/grid", "12 runs"]

    def test_predict_takes_it_and_the_store(self, runs, avfuse, planted):
        result = avfuse("predict", "--out", "predictions", "--device", "cpu")
        assert result.exit_code == 0, result.stderr
        assert said(result) == ["note: --run runs/lone", "note: --store features.zarr"]
        made = json.loads((runs.parent / "predictions/made.json").read_text())["made"]
        assert (made["runs"], made["store"]) == ([str(runs / "lone")], str(planted.store))

    def test_none(self, avfuse, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for words in (("evaluate",), ("predict", "--out", "predictions")):
            result = avfuse(*words)
            assert (result.exit_code, result.stderr) == (
                1,
                "Error: no run below runs has finished; give --run, or run `avfuse train --fold K` first\n",
            )

    def test_wrong_usage_comes_first(self, avfuse, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        result = avfuse("predict")
        assert result.exit_code == 2
        assert "name --out, or --submission and --sample" in result.stderr
