"""`avfuse train` as it is called: options, files of options, other corpora, what is on which stream."""

import json
import shutil
from dataclasses import fields

import numpy as np
import pytest

from avfuse.features_store.store import FeatureStore
from avfuse.fusion.artifacts.folder import read_description
from avfuse.fusion.artifacts.state import read_metrics
from avfuse.fusion.config import TrainConfig
from avfuse.fusion.models.crossattn import CrossAttentionSettings


@pytest.fixture
def start(avfuse, train_words, small, tmp_path):
    """Call `train` with more words, for `small` unless another corpus is given."""
    return lambda *words, corpus=small: avfuse(*train_words(corpus, tmp_path / "run", *words))


class TestUsage:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("--preset", "transformer"), "'transformer' is not one of"),
            (("--fold", "first"), "'first' is neither a fold's number nor all"),
            (("--fold", "-1"), "-1"),
            (("--set", "heads"), "'heads' is not KEY=VALUE"),
            (("--set", "=3"), "'=3' is not KEY=VALUE"),
            (("--set", "head=3"), "there is no setting 'head' (did you mean heads?)"),
            (("--set", "heads=two"), "heads=two: heads must be a whole number"),
            (("--set", "heads=3"), "attention_width 8 is not a multiple of heads 3"),
            (("--set", "lr=0"), "lr must be above 0, got 0.0"),
            (("--set", "hop-frames=900"), "hop_frames 900 leaves gaps between windows of 60 frames"),
            (("--set", "window-frames=1", "--set", "hop-frames=1"), "a window of one frame has no CCC"),
            (("--set", "statistics=trial"), "statistics must be one of scalar, feature"),
            (("--set", "task=va", "--task", "va"), "task: given twice, as an option and by --set"),
            (("--set", "seed=3"), "give the seed by --seed"),
            (("--modalities", "face,face"), "modalities must be distinct feature names"),
            (("--task", "fear"), "'fear' is not one of"),
            (("--seeds", "0"), "0 is not in the range"),
            (("--epochs", "0"), "0 is not in the range"),
            (("--precision", "int8"), "'int8' is not one of"),
            (("--manifest", "f.json", "--folds", "3"), "--manifest has the folds already"),
        ],
    )
    def test_wrong_usage(self, start, tmp_path, words, message):
        result = start(*words)
        assert result.exit_code == 2
        assert message in result.stderr.splitlines()[-1]
        assert result.stdout == ""
        assert list(tmp_path.iterdir()) == []


class TestSettings:
    def test_options_and_settings_arrive(self, start, tmp_path):
        result = start("--task", "valence", "--seed", 4, "--set", "dropout=0.3", "--set", "grad-clip=1", "--epochs", 1)
        assert result.exit_code == 0
        config = read_description(tmp_path / "run").config
        assert (config.task, config.seed, config.grad_clip) == ("valence", 4, 1.0)
        assert isinstance(config.model, CrossAttentionSettings)
        assert config.model.dropout == 0.3
        assert set(json.loads((tmp_path / "run" / "config.json").read_text())) == {
            "avfuse_run",
            *(each.name for each in fields(TrainConfig) if each.name != "finetune"),
        }

    def test_a_file_of_options(self, avfuse, small, tmp_path):
        (tmp_path / "c.yaml").write_text(
            f"store: {small.store}\nannotations: {small.annotations}\nmodalities: [face, voice]\nfold: 0\nepochs: 9\n"
            "preset: concat\nset: {window_frames: 60, hop_frames: 40, lr: 0.002}\ndevice: cpu\nplots: false\n"
        )
        result = avfuse("train", "--config", tmp_path / "c.yaml", "--out", tmp_path / "run", "--epochs", 1)
        assert result.exit_code == 0, result.stderr
        config = read_description(tmp_path / "run").config
        assert (config.preset, config.lr, config.max_epochs, config.window_frames) == ("concat", 0.002, 1, 60)
        assert config.modalities == ("face", "voice")
        assert not (tmp_path / "run" / "plots").exists()

    def test_an_unknown_key_in_the_file(self, avfuse, tmp_path):
        (tmp_path / "c.yaml").write_text("learning_rate: 0.1\n")
        result = avfuse("train", "--config", tmp_path / "c.yaml")
        assert result.exit_code == 2
        assert "unknown key: learning_rate" in result.stderr

    def test_the_settings_that_train_are_those_that_are_given(self, start, trained, tmp_path):
        """A run with other windows is another run."""
        assert start("--set", "window_frames=50").exit_code == 0
        assert (tmp_path / "run/model.safetensors").read_bytes() != (trained / "model.safetensors").read_bytes()


class TestStreams:
    def test_words_go_to_stderr(self, start, small):
        result = start()
        assert "8 trials, 940 rows of face 6, voice 4, on cpu" in result.stderr
        assert "best epoch" in result.stderr
        assert "\r" not in result.stderr

    def test_the_table_goes_to_stdout(self, start, tmp_path):
        scores = read_metrics(tmp_path / "run") if start().exit_code == 0 else {}
        header, row = start().stdout.splitlines()[1:]
        assert header.split() == ["fold", "Valence", "Arousal", "Mean"]
        assert row.split() == ["0", *(f"{scores[name]:z.3f}" for name in ("ccc_valence", "ccc_arousal", "P"))]
        assert not list((tmp_path / "run").glob("crossval.*"))

    def test_json_goes_to_stdout(self, start, tmp_path):
        (found,) = json.loads(start("--json").stdout)
        run = tmp_path / "run"
        assert found == {"fold": 0, "seed": 0, "run": str(run), **read_metrics(run)}


class TestAgain:
    """A second call with the same words, or with others."""

    @pytest.fixture
    def run(self, trained, tmp_path):
        return shutil.copytree(trained, tmp_path / "run")

    def contents(self, run):
        return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in run.rglob("*")}

    @pytest.mark.parametrize("words", [(), ("--resume",), ("--epochs", 2, "--resume"), ("--json",)])
    def test_a_finished_run_is_left_alone(self, start, run, words):
        before = self.contents(run)
        result = start(*words)
        assert result.exit_code == 0
        first, *table = result.stderr.splitlines()
        assert (first, len(table)) == ("0 runs to do, 1 done before", 3 if "--json" in words else 0)
        assert self.contents(run) == before

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("--set", "lr=0.01"), "lr: 0.003 in the run, 0.01 now"),
            (("--set", "lead_channels=9,9"), "lead_channels: 8,8 in the run, 9,9 now"),
            (("--seed", 5), "seed: 0 in the run, 5 now"),
            (("--fold", 1), "fold: 0 in the run, 1 now"),
            (("--task", "arousal"), "task: va in the run, arousal now"),
            (("--modalities", "voice,face"), "modalities: face,voice in the run, voice,face now"),
        ],
    )
    @pytest.mark.parametrize("resume", [(), ("--resume",)])
    def test_other_settings_are_refused(self, start, run, words, message, resume):
        before = self.contents(run)
        result = start(*words, *resume)
        assert result.exit_code == 1
        line = result.stderr.splitlines()[-1]
        assert line.startswith(f"Error: {run} holds a run with other settings ({message})")
        assert line.endswith("name another --out")
        assert self.contents(run) == before

    def test_more_epochs(self, start, run, fit, small, same_run, tmp_path):
        """With --resume three epochs become five: the same five as in one go."""
        assert start("--epochs", 5, "--resume").exit_code == 0
        fit(small, tmp_path / "whole", "--epochs", 5)
        same_run(run, tmp_path / "whole")
        assert read_description(run).config.max_epochs == 5
        assert json.loads((run / "finished.json").read_text())["epochs"] == 5

    def test_a_run_that_has_not_ended(self, start, run):
        (run / "finished.json").unlink()
        before = self.contents(run)
        result = start()
        assert result.exit_code == 1
        assert "holds a run that has not ended: --resume goes on" in result.stderr
        assert self.contents(run) == before
        assert start("--resume").exit_code == 0

    def test_other_trials_than_before(self, start, run, plant_small, tmp_path):
        (run / "finished.json").unlink()
        corpus = plant_small(tmp_path / "more", trials=9)
        result = start("--resume", corpus=corpus)
        assert result.exit_code == 1
        assert "was trained on other trials than there are now" in result.stderr
        assert not (run / "finished.json").exists()

    def test_other_features_than_before(self, start, run, plant_small, tmp_path):
        (run / "finished.json").unlink()
        corpus = plant_small(tmp_path / "other", fingerprint="another")
        result = start("--resume", corpus=corpus)
        assert result.exit_code == 1
        assert "--allow-other-features" in result.stderr.splitlines()[-1]
        assert start("--resume", "--allow-other-features", corpus=corpus).exit_code == 0


class TestOtherCorpora:
    """No official split: a CSV file a trial."""

    @pytest.fixture
    def plain(self, small, tmp_path):
        """The labels of `small` in one folder, and a table of four subjects."""
        folder = tmp_path / "labels"
        folder.mkdir()
        for number in range(8):
            shutil.copy(small.labels(f"clip{number}"), folder / f"clip{number}.csv")
        lines = [f"clip{number},person{number // 2}" for number in range(8)]
        (tmp_path / "subjects.csv").write_text("\n".join(["trial,subject", *lines]))
        return type(small)(small.store, folder)

    def test_folds_of_subjects(self, start, plain, tmp_path):
        words = ("--folds", 3, "--groups", tmp_path / "subjects.csv", "--fold", "all", "--epochs", 1)
        result = start(*words, corpus=plain)
        assert result.exit_code == 0, result.stderr
        folds = [read_description(tmp_path / f"run/fold{fold}/seed0").fold for fold in range(3)]
        held = [{name[-1] for name in fold.validation} for fold in folds]
        assert sorted(int(number) for each in held for number in each) == list(range(8))
        for each in held:
            assert {int(number) // 2 for number in each}.isdisjoint(int(n) // 2 for n in set("01234567") - each)
        name = folds[0].validation[0]
        assert (tmp_path / "run/fold0/seed0/predictions" / f"{name}.txt").is_file()
        assert "mean of 3" in result.stdout

    def test_folds_are_needed(self, start, plain):
        result = start(corpus=plain)
        assert result.exit_code == 1
        assert "give --folds N" in result.stderr.splitlines()[-1]

    def test_labels_with_times(self, start, small, trained, tmp_path):
        """At 10 Hz, on frames of 25 Hz: interpolated labels score the same network about as the frames' own do."""
        folder = tmp_path / "timed"
        folder.mkdir()
        for number in range(8):
            values = np.loadtxt(small.labels(f"clip{number}"), delimiter=",", skiprows=1)
            time_s = np.arange(0, len(values) / 25, 0.1)
            frames = np.arange(len(values)) / 25
            rows = [np.interp(time_s, frames, column) for column in np.where(values == -5, 0, values).T]
            lines = [f"{t:.3f},{v:.6f},{a:.6f}" for t, v, a in zip(time_s, *rows, strict=True)]
            (folder / f"clip{number}.csv").write_text("\n".join(["time,valence,arousal", *lines]))
        corpus = type(small)(small.store, folder)
        manifest = tmp_path / "folds.json"
        sides = json.loads((trained / "fold.json").read_text())
        fold = {"fold": 0, "train": sides["train"], "validation": sides["validation"]}
        manifest.write_text(json.dumps({"avfuse_folds": 1, "folds": [fold]}))
        result = start("--manifest", manifest, corpus=corpus)
        assert result.exit_code == 0, result.stderr
        found = read_metrics(tmp_path / "run")
        assert 240 <= found["frames"] <= 250
        assert found["P"] == pytest.approx(read_metrics(trained)["P"], abs=0.1)

    def test_a_manifest_of_one_s_own(self, start, small, avfuse, tmp_path):
        result = avfuse("folds", "--annotations", small.annotations, "--out", tmp_path / "folds.json")
        assert result.exit_code == 0
        assert start("--manifest", tmp_path / "folds.json", "--fold", 5, "--epochs", 1).exit_code == 0
        assert read_description(tmp_path / "run").fold.number == 5


def test_trials_in_folders_of_the_store(start, small, tmp_path):
    """Annotations know the last part of a name only; results are named as the store has it."""
    store = FeatureStore(tmp_path / "deep.zarr", mode="a")
    for number in range(8):
        store.write(f"batch{number % 3}/clip{number}", small.rows(f"clip{number}"), {"fingerprint": "planted"})
    result = start(corpus=type(small)(tmp_path / "deep.zarr", small.annotations))
    assert result.exit_code == 0, result.stderr
    held_out = ("batch0/clip3", "batch1/clip7")
    predictions = tmp_path / "run/predictions"
    assert {path.relative_to(predictions).with_suffix("").as_posix() for path in predictions.rglob("*.txt")} == set(
        held_out
    )
    assert read_description(tmp_path / "run").fold.validation == held_out
