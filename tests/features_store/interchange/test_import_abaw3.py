"""ABAW3 folders with the defects of S3's preprocessing planted in them: docs/sources.md (ABAW3 folders)."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from avfuse.features_store import commands
from avfuse.features_store.interchange.abaw3_check import MOST_LAG, check_abaw3, shrunk
from avfuse.features_store.interchange.feature_files import FeatureFileError
from avfuse.features_store.interchange.import_abaw3 import find_trials, frames_of, import_abaw3, stored_names
from avfuse.features_store.labels.corpus import open_corpus
from avfuse.features_store.records.provenance import Inputs, record_inputs
from avfuse.features_store.records.verify import fix_commands, verify
from avfuse.features_store.store import FeatureStore

T = 400
# Frames without a label: at the beginning, and among the others.
UNLABELLED = {"clip_a": [], "clip_b": [*range(30), *range(200, 212)], "clip_c": [399]}


def walk(seed, *shape):
    """Rows that change slowly, and now more, now less, as faces and sound do."""
    random = np.random.default_rng(seed)
    strength = np.exp(random.normal(size=(shape[0], *(1 for _ in shape[1:]))))
    return np.cumsum(strength * random.normal(size=shape), axis=0).astype(np.float32)


def pictures(seed):
    rows = walk(seed, T, 24, 24, 3)
    rows = (rows - rows.min()) / (rows.max() - rows.min())
    return (1 + rows * 254).astype(np.uint8)


@pytest.fixture(scope="module")
def truth():
    """What an extractor without faults makes of each trial."""
    made = {}
    for number, name in enumerate(UNLABELLED):
        made[name] = {
            "crop48": pictures(10 * number),
            "logmel": walk(10 * number + 1, T, 32, 16).astype(np.float16).astype(np.float32),
            "vggish": walk(10 * number + 2, T, 128),
            "labels": np.tanh(walk(10 * number + 3, T, 2) / 10),
        }
    return made


@pytest.fixture(scope="module")
def reference(truth, tmp_path_factory):
    """A store of the same videos, in a folder of theirs."""
    store = FeatureStore(tmp_path_factory.mktemp("reference") / "features.zarr", mode="a")
    for name, arrays in truth.items():
        own = {each: arrays[each] for each in ("crop48", "logmel", "vggish")}
        valid = {f"{each}_valid": np.ones(T, np.bool_) for each in own}
        store.write(f"batch1/{name}", {"time": np.arange(T) / 30, **own, **valid}, {"frames_decoded": T})
    return store


@pytest.fixture(scope="module")
def corpus(truth, tmp_path_factory):
    root = tmp_path_factory.mktemp("labels")
    folder = root / "VA_Estimation_Challenge" / "Train_Set"
    folder.mkdir(parents=True)
    (root / "VA_Estimation_Challenge" / "Validation_Set").mkdir()
    for name, arrays in truth.items():
        rows = arrays["labels"].copy()
        rows[UNLABELLED[name]] = -5
        np.savetxt(folder / f"{name}.txt", rows, fmt="%.6f", delimiter=",", header="valence,arousal", comments="")
    return open_corpus(root)


@pytest.fixture
def folder(truth, tmp_path):
    """compacted_48 as S3's preprocessing writes it: VGGish a row early, crops counted from the first frame."""
    root = tmp_path / "npy" / "compacted_48"
    for name, arrays in truth.items():
        annotated = np.setdiff1d(np.arange(T), UNLABELLED[name])
        (root / name).mkdir(parents=True)
        early = np.concatenate([arrays["vggish"][1:], arrays["vggish"][-1:]])
        saved = {
            "video": arrays["crop48"][: len(annotated)].copy(),
            "logmel": arrays["logmel"][annotated].astype(np.float16),
            "vggish": early[annotated],
            "bert": np.zeros((len(annotated), 8), np.float32),
            "VA_continuous_label": arrays["labels"][annotated],
        }
        saved["video"][5] = 0  # no crop
        for array, rows in saved.items():
            np.save(root / name / f"{array}.npy", rows)
    (root / "dataset_info.pkl").write_bytes(pickle.dumps({"trial": list(truth)}))
    return tmp_path / "npy"


def test_each_defect_is_named_with_its_evidence(folder, reference, corpus):
    findings, notes = check_abaw3(find_trials(folder), reference, corpus)
    found = {(each.trial, each.array): each for each in findings}
    assert len(found) == 9
    for name in UNLABELLED:
        assert found[name, "logmel"].verdict == "in step"
        early = found[name, "vggish"]
        assert (early.verdict, early.lag, early.compared_with) == ("one row early", 1, "vggish")
        assert early.score > 0.999 > early.score_0
        assert found[name, "video"].blank == 1
    crops = found["clip_b", "video"]
    assert (crops.verdict, crops.lag, crops.rows) == ("crops too early", -42, T - 42)
    assert crops.score > 0.99 > crops.score_0 + 0.1
    assert {found[name, "video"].verdict for name in ("clip_a", "clip_c")} == {"in step"}
    assert notes == [f"{name}: {reference.path} has no bert to compare bert with" for name in UNLABELLED]


def test_other_weights_show_by_their_changes(folder, truth, corpus, tmp_path):
    """The store's VGGish is of another network, of another width: its changes lie where the sound's do."""
    store = FeatureStore(tmp_path / "other.zarr", mode="a")
    mix = np.random.default_rng(0).normal(size=(128, 16)).astype(np.float32)
    rows = np.tanh(truth["clip_a"]["vggish"] @ mix / 100)
    store.write("clip_a", {"time": np.arange(T) / 30, "vggish": rows, "vggish_valid": np.ones(T, np.bool_)}, {})
    trials = {"clip_a": find_trials(folder)["clip_a"]}
    (finding,) = check_abaw3(trials, store, corpus)[0]
    assert (finding.measure, finding.verdict, finding.lag) == ("changes", "one row early", 1)


@pytest.mark.parametrize("lag", [-7, 0, 3])
def test_any_shift_is_found(folder, truth, reference, lag):
    name = "clip_a"
    np.save(find_trials(folder)[name].path("logmel"), np.roll(truth[name]["logmel"], -lag, axis=0))
    trials = {name: find_trials(folder)[name]}
    found = {each.array: each for each in check_abaw3(trials, reference, None)[0]}["logmel"]
    assert (found.lag, found.verdict) == (lag, "shifted" if lag else "in step")


def test_what_resembles_nothing_is_unclear(folder, reference):
    name = "clip_a"
    np.save(find_trials(folder)[name].path("vggish"), walk(99, T, 128))
    found = {each.array: each for each in check_abaw3({name: find_trials(folder)[name]}, reference, None)[0]}
    assert found["vggish"].verdict == "unclear"
    assert abs(found["vggish"].lag) <= MOST_LAG


def test_rows_lie_at_the_frames_of_their_labels(folder, truth, corpus, store):
    trials = find_trials(folder)
    done = import_abaw3(store, trials, corpus)
    assert done.made == tuple(UNLABELLED)
    assert list(done.features) == ["abaw3_video", "abaw3_logmel", "abaw3_vggish", "abaw3_bert"]
    for name, arrays in truth.items():
        annotated = np.setdiff1d(np.arange(T), UNLABELLED[name])
        trial = store[name]
        assert trial.rows == T
        assert np.array_equal(np.flatnonzero(trial.valid("abaw3_logmel")), annotated)
        assert np.array_equal(trial.read("abaw3_logmel")[annotated], arrays["logmel"][annotated])
        assert trial["abaw3_video"].dtype == np.uint8
        assert not trial.valid("abaw3_video")[annotated[5]]
        assert trial.time_s[30] == 1.0
        assert "nominal" in trial.attributes["warnings"][0]
    assert list(verify(store)) == []
    again = import_abaw3(store, find_trials(folder), corpus)
    assert again.made == ()
    assert all(not each.written for each in again.features.values())


def test_fixed_rows_are_those_of_the_store(folder, truth, corpus, reference, store):
    trials = find_trials(folder)
    findings, _ = check_abaw3(trials, reference, corpus)
    moved = {(each.trial, each.array): each.frames for each in findings if each.frames is not None}
    assert set(moved) == {("clip_b", "video"), *((name, "vggish") for name in UNLABELLED)}
    import_abaw3(store, trials, corpus, moved=moved)
    for name, arrays in truth.items():
        trial = store[name]
        for feature, own in (("abaw3_vggish", "vggish"), ("abaw3_video", "crop48"), ("abaw3_logmel", "logmel")):
            valid = trial.valid(feature)
            # The last row of VGGish is a repeated one where there is no frame after the last.
            assert valid.sum() >= T - 1 - len(UNLABELLED[name])
            assert np.array_equal(trial.read(feature)[valid], arrays[own][valid]), (name, feature)


def test_a_trial_without_any_crop(folder, reference, corpus, store):
    """Its rows are there, and none is valid; nothing is said of its crops but that they are black."""
    np.save(find_trials(folder)["clip_a"].path("video"), np.zeros((T, 24, 24, 3), np.uint8))
    trials = {"clip_a": find_trials(folder)["clip_a"]}
    found = {each.array: each for each in check_abaw3(trials, reference, corpus)[0]}["video"]
    assert (found.verdict, found.blank) == ("unclear", T)
    import_abaw3(store, trials, corpus)
    assert not store["clip_a"].read("abaw3_video").any()
    assert not store["clip_a"].valid("abaw3_video").any()
    assert store["clip_a"].valid("abaw3_vggish").all()


def test_beside_what_a_store_has(folder, truth, tmp_path, corpus):
    store = FeatureStore(tmp_path / "own.zarr", mode="a")
    rows = np.zeros((T, 2), np.float32)
    for name in truth:
        store.write(f"b/{name}", {"time": np.arange(T) / 25, "own": rows, "own_valid": np.ones(T, np.bool_)}, {})
    done = import_abaw3(store, find_trials(folder), corpus)
    assert done.made == ()
    assert store["b/clip_a"].features == ["abaw3_bert", "abaw3_logmel", "abaw3_vggish", "abaw3_video", "own"]
    assert store["b/clip_a"].time_s[25] == 1.0


def test_what_is_damaged_is_imported_again(folder, corpus, store, flip):
    """There is no video to extract from; the command that the store suggests mends it."""
    import_abaw3(store, find_trials(folder), corpus)
    flip(store.files.root / "clip_b" / "abaw3_vggish" / "c" / "0" / "0", 30)
    assert {problem.trial for problem in verify(store)} == {"clip_b"}
    assert fix_commands(store, ["clip_b"]) == [f"avfuse import-abaw3 … --store {store.path} --replace"]
    record_inputs(store.files, Inputs(annotations=str(folder)))
    assert fix_commands(store, ["clip_b"]) == [
        f"avfuse import-abaw3 … --annotations {folder} --store {store.path} --replace"
    ]
    done = import_abaw3(store, find_trials(folder), corpus, replace=True)
    assert done.features["abaw3_vggish"].written == ("clip_b",)
    assert list(verify(store)) == []


def test_damaged_times_are_made_anew(folder, corpus, store, flip):
    import_abaw3(store, find_trials(folder), corpus, rate_hz=25.0)
    before = {name: dict(trial.attributes) for name, trial in store.items()}
    flip(store.files.root / "clip_b" / "time" / "c" / "0", 30)
    assert not store["clip_b"].is_whole("time")
    done = import_abaw3(store, find_trials(folder), corpus, replace=True)
    assert done.notes == ("clip_b: its times were broken, and are made anew",)
    assert not any(summary.written for summary in done.features.values())
    assert list(verify(store)) == []
    assert store["clip_b"].time_s[25] == 1.0  # at the rate that it was made with
    assert {name: dict(trial.attributes)["checksums"] for name, trial in store.items()} == {
        name: attributes["checksums"] for name, attributes in before.items()
    }


def test_which_rows_have_a_label_must_be_known(folder, reference, corpus, truth):
    trial = find_trials(folder)["clip_b"]
    with pytest.raises(ValueError, match=r"has 358 rows for 400 frames of the store: which .* --annotations says so"):
        frames_of(trial, None, T)
    (trial.folder / "VA_continuous_label.npy").unlink()
    np.save(trial.path("video"), truth["clip_b"]["crop48"][:300])
    with pytest.raises(
        ValueError, match=r"differ in their rows \(video 300, logmel 358, .*\); they are not of one trial"
    ):
        find_trials(folder)
    with pytest.raises(ValueError, match=r"has 358 rows, and .*clip_a\.txt 400 labelled frames; are these its labels"):
        frames_of(type(trial)("clip_a", trial.folder, trial.arrays, 358, None), corpus, T)


def test_other_labels_are_noted(folder, corpus, truth):
    path = find_trials(folder)["clip_a"].path("VA_continuous_label")
    labels = truth["clip_a"]["labels"].copy()
    labels[:10] += 0.1
    np.save(path, labels)
    _, _, note = frames_of(find_trials(folder)["clip_a"], corpus, T)
    assert note.startswith("clip_a: 10 of 400 labels differ from those of ")


class Bomb:
    def __reduce__(self):
        return (open, ("/nowhere/exploded", "w"))


def test_nothing_is_unpickled(folder, tmp_path):
    (folder / "compacted_48" / "dataset_info.pkl").write_bytes(pickle.dumps(Bomb()))
    assert len(find_trials(folder)) == 3
    np.save(folder / "compacted_48" / "clip_a" / "bert.npy", np.array([Bomb()], object), allow_pickle=True)
    with pytest.raises(FeatureFileError, match=r"bert\.npy is not an array of plain numbers, or cut off"):
        find_trials(folder)


def test_what_is_no_such_folder(tmp_path, folder):
    with pytest.raises(ValueError, match=r"holds no folder <trial>/video\.npy"):
        find_trials(tmp_path / "absent")
    (folder / "copy").mkdir()
    (folder / "compacted_48" / "clip_a").rename(folder / "copy" / "clip_b")
    with pytest.raises(ValueError, match=r"trial 'clip_b' has two folders: .*; name one of them"):
        find_trials(folder)


def test_two_trials_that_end_alike(store):
    for name in ("a/clip", "b/clip"):
        store.write(name, {"time": np.arange(3.0)}, {})
    with pytest.raises(ValueError, match=r"several trials called 'clip': a/clip, b/clip"):
        stored_names(store, ["clip"])


def test_pictures_and_patches_are_shrunk():
    assert shrunk(np.ones((5, 48, 48, 3), np.uint8)).shape == (5, 256)
    assert shrunk(np.ones((5, 96, 64), np.float16)).shape == (5, 256)
    assert shrunk(np.ones((5, 128), np.float32)).shape == (5, 128)


class TestCommand:
    def call(self, *words):
        return CliRunner().invoke(commands.import_abaw3, [*map(str, words)])

    def test_check_import_and_fix(self, folder, reference, corpus, tmp_path):
        words = (folder, "--annotations", corpus.root, "--check-against", reference.path)
        checked = self.call(*words)
        assert checked.exit_code == 3, checked.output
        lines = checked.stdout.splitlines()
        assert lines[0].split()[:3] == ["trial", "array", "finding"]
        assert "vggish, 3 trials: one row early: each row is that of the next frame" in checked.stdout
        assert "video, 1 trial: crops too early" in checked.stdout
        assert "video: 3 black rows" in checked.stdout
        guide = (Path(__file__).parents[3] / "docs" / "interop.md").read_text()
        assert f"```text\n{checked.stdout}```" in guide
        fixed = self.call(*words, "--store", tmp_path / "new.zarr", "--fix")
        assert fixed.exit_code == 0, fixed.output
        assert fixed.stdout.splitlines()[-1] == "4 arrays put at the frames that they belong to"
        root = json.loads((tmp_path / "new.zarr" / "zarr.json").read_text())
        assert root["attributes"]["annotations"] == str(corpus.root)
        raw = self.call(*words[:3], "--store", tmp_path / "new.zarr")
        assert raw.exit_code == 1
        assert "holds other rows called 'abaw3_video'" in raw.stderr or "'abaw3_vggish'" in raw.stderr

    def test_as_json(self, folder, reference, corpus):
        words = (folder, "--annotations", corpus.root, "--check-against", reference.path, "--json")
        found = json.loads(self.call(*words).stdout)
        assert found["imported"] is None
        assert {each["verdict"] for each in found["findings"]} == {"in step", "one row early", "crops too early"}

    def test_wrong_usage(self, folder, tmp_path):
        assert self.call(folder).exit_code == 2
        assert self.call(folder, "--store", tmp_path / "x.zarr", "--fix").exit_code == 2
