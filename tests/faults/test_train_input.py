"""Everything that can be wrong with what `avfuse train` is given: one line that says what, and nothing is lost."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from avfuse.features_store.store import FeatureStore
from avfuse.fusion.artifacts.state import load_state, read_metrics, save_state


@pytest.fixture
def corpus(plant_small, tmp_path):
    """A corpus to be spoiled."""
    return plant_small(tmp_path / "corpus")


@pytest.fixture(scope="module")
def whole(plant_small, fit, tmp_path_factory):
    """A corpus and a run of it, not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    corpus = plant_small(folder)
    fit(corpus, folder / "run")
    return corpus, folder / "run"


@pytest.fixture
def refused(avfuse, train_words, tmp_path, reason):
    """Train in vain: exit code 1, one line, and no result."""

    def run(corpus, *words):
        out = tmp_path / "run"
        result = avfuse(*train_words(corpus, out, *words))
        assert result.exit_code == 1, result.stderr
        assert result.stdout == ""
        assert not (out / "metrics.json").exists()
        return reason(result.stderr)

    return run


@pytest.fixture
def started(avfuse, train_words, tmp_path):
    """Train; returns what is said on stderr, and the scores."""

    def run(corpus, *words):
        result = avfuse(*train_words(corpus, tmp_path / "run", *words))
        assert result.exit_code == 0, result.stderr
        return result.stderr.splitlines(), read_metrics(tmp_path / "run")

    return run


def mask(path):
    """Every label of a file is −5."""
    rows = len(path.read_text().splitlines()) - 1
    path.write_text("valence,arousal\n" + "-5,-5\n" * rows)


class TestPlaces:
    def test_no_store(self, corpus, refused, tmp_path):
        message = refused(corpus, "--store", tmp_path / "nowhere")
        assert "nowhere is not an avfuse store" in message
        assert not (tmp_path / "nowhere").exists()
        assert not (tmp_path / "run").exists()

    def test_a_store_that_is_another_folder(self, corpus, refused, tmp_path):
        assert "is not an avfuse store" in refused(corpus, "--store", corpus.annotations)

    def test_an_empty_store(self, corpus, refused, tmp_path):
        FeatureStore(tmp_path / "empty.zarr", mode="a")
        assert "does not hold a trial; `avfuse extract` fills it" in refused(corpus, "--store", tmp_path / "empty.zarr")

    def test_no_annotations(self, corpus, refused, tmp_path):
        assert "nowhere" in refused(corpus, "--annotations", tmp_path / "nowhere")

    def test_annotations_that_are_none(self, corpus, refused, tmp_path):
        assert "holds neither a folder VA_Estimation_Challenge nor a label file" in refused(
            corpus, "--annotations", tmp_path / "corpus" / "features.zarr" / "clip0" / "time"
        )

    def test_annotations_of_other_trials(self, corpus, refused):
        for path in corpus.annotations.rglob("*.txt"):
            path.rename(path.with_name(f"video_{path.name}"))
        message = refused(corpus)
        assert "video_clip0" in message
        assert "clip0, clip1" in message
        assert "the names differ" in message

    def test_a_label_that_is_none(self, corpus, refused):
        path = corpus.labels("clip2")
        lines = path.read_text().splitlines()
        lines[7] = "0.1,1.5"
        path.write_text("\n".join(lines))
        assert f"{path}:8: 1.5 is neither in [-1, 1] nor -5" in refused(corpus)

    def test_out_holds_other_files(self, corpus, refused, tmp_path):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "thesis.tex").write_text("mine")
        assert "holds other files and is not the folder of a run; name another --out" in refused(corpus, "--resume")
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]

    def test_out_is_a_file(self, corpus, avfuse, train_words, tmp_path):
        (tmp_path / "run").write_text("mine")
        result = avfuse(*train_words(corpus, tmp_path / "run"))
        assert result.exit_code == 2
        assert (tmp_path / "run").read_text() == "mine"

    @pytest.mark.parametrize("device", ["cuda:99", "gpu", "mps"])
    def test_no_such_device(self, corpus, refused, device):
        assert device in refused(corpus, "--device", device)


class TestFolds:
    @pytest.mark.parametrize("fold", [6, 99])
    def test_no_such_fold(self, corpus, refused, fold):
        assert f"there is no fold {fold}; there are 0, 1, 2, 3, 4, 5" in refused(corpus, "--fold", fold)

    @pytest.mark.parametrize(("side", "names"), [("validation", (3, 7)), ("training", (0, 1, 2, 4, 5, 6))])
    def test_a_side_without_features(self, corpus, refused, side, names):
        store = FeatureStore(corpus.store, mode="a")
        for number in names:
            store.remove(f"clip{number}")
        message = refused(corpus)
        assert f"fold 0: none of its {len(names)} {side} trials has features in the store" in message
        assert f"clip{names[0]}" in message

    @pytest.mark.parametrize(("side", "names"), [("validation", (3, 7)), ("training", (0, 1, 2, 4, 5, 6))])
    def test_a_side_without_labels(self, corpus, refused, fit, side, names, tmp_path):
        """All of them −5; when that is mended, the run goes on from its start."""
        kept = {number: corpus.labels(f"clip{number}").read_text() for number in names}
        for number in names:
            mask(corpus.labels(f"clip{number}"))
        assert f"the {side} side of fold 0 has no labelled frame" in refused(corpus)
        for number, text in kept.items():
            corpus.labels(f"clip{number}").write_text(text)
        fit(corpus, tmp_path / "run", "--resume")
        assert read_metrics(tmp_path / "run")["frames"] == 240

    def test_one_trial_without_labels(self, corpus, started, tmp_path):
        """It counts for nothing, and its picture is drawn all the same."""
        mask(corpus.labels("clip7"))
        _, scores = started(corpus, "--plots")
        assert scores["frames"] == 105
        assert (tmp_path / "run" / "plots" / "predictions" / "clip7.png").is_file()
        assert len((tmp_path / "run" / "predictions" / "clip7.txt").read_text().splitlines()) == 136

    def test_one_trial_of_one_row(self, corpus, started):
        corpus.labels("clip0").write_text("valence,arousal\n0.1,0.2\n")
        said, _ = started(corpus, "--allow-length-difference")
        assert "note: clip0: 1 label row but 100 rows of features" in said


class TestFeatures:
    def test_a_feature_that_the_store_has_not(self, corpus, refused):
        message = refused(corpus, "--modalities", "face,mfcc")
        assert "has no mfcc, only face, voice; extract it, or choose --modalities" in message

    def test_the_default_features_are_not_there(self, corpus, refused):
        assert "iresnet50" in refused(corpus, "--modalities", "iresnet50,vggish,logmel_vgg")

    def test_an_array_that_is_no_feature(self, corpus, refused):
        for number in range(8):
            rows = len(corpus.rows(f"clip{number}")["face"])
            patches = np.zeros((rows, 4, 3), np.float32)
            corpus.rewrite(f"clip{number}", patch=patches, patch_valid=np.ones(rows, bool))
        assert "patch has rows of shape (4, 3); the head crossattn takes features [T, D]" in refused(
            corpus, "--modalities", "patch"
        )

    def test_trials_partly_without_features(self, corpus, started):
        """Named, and the scores are without them."""
        corpus.rewrite("clip7", voice=None, voice_valid=None)
        FeatureStore(corpus.store, mode="a").remove("clip1")
        said, scores = started(corpus)
        assert "note: clip7: the store has no voice; it is left out" in said
        assert "note: left out, since they have labels but no features: clip1, clip7; scores are without them" in said
        assert (scores["trials"], scores["frames"]) == (1, 105)

    def test_trials_without_labels(self, corpus, started):
        corpus.labels("clip6").unlink()
        said, _ = started(corpus)
        assert "note: left out, since they have features but no labels: clip6" in said

    def test_tracks_of_different_lengths(self, corpus, refused):
        shutil.rmtree(corpus.store / "clip2" / "voice")
        shutil.copytree(corpus.store / "clip1" / "voice", corpus.store / "clip2" / "voice")
        message = refused(corpus)
        assert "trial 'clip2' has 110 rows, but its voice has 105" in message
        assert "extract it again" in message

    def test_tracks_of_different_widths(self, corpus, refused):
        corpus.rewrite("clip5", face=np.zeros((125, 7), np.float32))
        message = refused(corpus)
        assert "face differs in width between trials: 6 in 'clip0', 7 in 'clip5'" in message

    def test_a_track_whose_file_is_gone(self, corpus, refused):
        shutil.rmtree(corpus.store / "clip2" / "voice")
        assert "clip2" in refused(corpus)

    def test_numbers_that_are_none(self, corpus, started, tmp_path):
        """They count as missing: the scores stay numbers, and so does every weight."""
        rows = corpus.rows("clip3")["face"]
        rows[20:31] = np.nan
        rows[50, 2] = np.inf
        corpus.rewrite("clip3", face=rows)
        everywhere = np.full((100, 4), np.nan, np.float32)
        corpus.rewrite("clip0", voice=everywhere)
        said, scores = started(corpus)
        message = "rows of face are not finite (the first is row 20); they count as missing"
        assert f"note: clip3: 12 {message}" in said
        assert "note: clip0: 100 rows of voice are not finite (the first is row 0); they count as missing" in said
        assert all(np.isfinite(scores[name]) for name in ("P", "ccc_valence", "ccc_arousal"))
        assert all(value.isfinite().all() for value in load_file(tmp_path / "run/model.safetensors").values())

    def test_fewer_rows_than_labels(self, corpus, refused, started, tmp_path):
        """The labels say how long a trial is: the last row is repeated."""
        corpus.rewrite("clip3", **{name: rows[:90] for name, rows in corpus.rows("clip3").items()})
        message = refused(corpus)
        assert "clip3: 115 label rows but 90 rows of features" in message
        assert "--allow-length-difference" in message
        said, scores = started(corpus, "--allow-length-difference")
        assert "note: clip3: 115 label rows but 90 rows of features" in said
        assert scores["frames"] == 240
        assert len((tmp_path / "run" / "predictions" / "clip3.txt").read_text().splitlines()) == 116

    def test_features_of_different_making(self, corpus, refused, started):
        for name in ("clip1", "clip7"):
            corpus.rewrite(name, fingerprint="0123456789abcdef")
        message = refused(corpus)
        assert "different settings or weights: planted (6 trials), 0123456789ab (2 trials)" in message
        assert "--allow-other-features" in message
        _, scores = started(corpus, "--allow-other-features")
        assert scores["frames"] == 240

    def test_loss_that_is_no_number(self, corpus, refused, fit, tmp_path):
        message = refused(corpus, "--set", "lr=1e30", "--set", "warmup_epochs=0")
        assert "the loss of epoch" in message
        assert "try a smaller lr" in message


class TestBrokenRun:
    """A run to go on with whose files have been spoiled: refused by name, and left as it is."""

    @pytest.fixture
    def run(self, whole, tmp_path):
        run = shutil.copytree(whole[1], tmp_path / "run")
        (run / "finished.json").unlink()
        return run

    @pytest.fixture
    def resume(self, whole, run, avfuse, train_words, reason):
        def again():
            result = avfuse(*train_words(whole[0], run, "--resume"))
            assert result.exit_code == 1, result.stderr
            assert not (run / "finished.json").exists()
            return reason(result.stderr)

        return again

    @pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04 and more"])
    def test_training_pt(self, run, resume, content):
        (run / "training.pt").write_bytes(content)
        message = resume()
        assert f"{run / 'training.pt'} is broken" in message
        assert f"remove the folder {run} and train again" in message
        assert (run / "training.pt").read_bytes() == content

    def test_training_pt_of_another_network(self, run, resume):
        state = load_state(run)
        assert state is not None
        state.model = state.best = {"linear.weight": torch.zeros(2, 10)}
        save_state(run, state)
        assert "training.pt is not of this network" in resume()

    def test_training_pt_of_another_optimiser(self, run, resume):
        state = load_state(run)
        assert state is not None
        state.optimizer = {"state": {}}
        save_state(run, state)
        assert "training.pt is not of this network" in resume()

    @pytest.mark.parametrize("name", ["config.json", "fold.json", "features.json", "statistics.json"])
    def test_a_description(self, run, resume, name, snapshot):
        (run / name).write_bytes(b'{"half')
        before = snapshot(run)
        assert f"{run / name} is not JSON" in resume()
        assert snapshot(run) == before

    def test_results_are_made_again(self, whole, run, fit, same_run):
        """They come from training.pt."""
        (run / "metrics.json").unlink()
        (run / "model.safetensors").write_bytes(b"half")
        (run / "history.csv").write_text("epoch\n")
        fit(whole[0], run, "--resume")
        same_run(run, whole[1])

    @pytest.mark.parametrize("command", ["evaluate", "predict"])
    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("model.safetensors", b"half", "model.safetensors is broken"),
            ("model.safetensors", None, "has not finished an epoch"),
            ("config.json", b"{", "config.json is not JSON"),
            ("statistics.json", b"[]", "statistics.json is not a JSON object"),
            ("features.json", None, "there is no features.json"),
        ],
    )
    def test_results(self, whole, run, avfuse, reason, command, name, content, message, tmp_path):
        (run / name).unlink() if content is None else (run / name).write_bytes(content)
        words = () if command == "evaluate" else ("--store", whole[0].store, "--out", tmp_path / "out")
        result = avfuse(command, "--run", run, *words)
        assert result.exit_code == 1
        assert message in reason(result.stderr)
        assert not (tmp_path / "out").exists()

    def test_the_weights_of_another_run(self, whole, run, avfuse, reason):
        save_file({"linear.weight": torch.zeros(2, 10)}, run / "model.safetensors")
        result = avfuse("evaluate", "--run", run)
        assert result.exit_code == 1
        assert "is not the network of its config.json" in reason(result.stderr)

    def test_a_network_that_fits_no_memory(self, whole, tmp_path, avfuse, train_words, reason):
        result = avfuse(*train_words(whole[0], tmp_path / "huge", "--set", "hidden=1000000000000"))
        assert result.exit_code == 1
        assert "do not fit into memory: try a smaller batch_size" in reason(result.stderr)

    def test_labels_that_have_changed(self, corpus, fit, train_words, avfuse, reason, tmp_path):
        fit(corpus, tmp_path / "run", "--epochs", 1)
        path = corpus.labels("clip0")
        path.write_text(path.read_text().replace("\n", "\n-5,-5\n", 1).rsplit("\n", 2)[0] + "\n")
        result = avfuse(*train_words(corpus, tmp_path / "run", "--epochs", 2, "--resume"))
        assert result.exit_code == 1
        assert "was trained on other labels" in reason(result.stderr)

    def test_a_finished_run_whose_scores_are_gone(self, whole, tmp_path, avfuse, train_words, reason):
        run = shutil.copytree(whole[1], tmp_path / "done")
        (run / "metrics.json").write_text(json.dumps({"P": 1}))
        result = avfuse(*train_words(whole[0], run, "--json"))
        assert result.exit_code == 1
        assert "metrics.json has no ccc_arousal, ccc_valence, epoch" in reason(result.stderr)
