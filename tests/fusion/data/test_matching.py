from pathlib import Path

import numpy as np
import pytest

from avfuse.features_store.labels.corpus import open_corpus
from avfuse.features_store.store import FeatureStore
from avfuse.fusion.data.matching import TrialSource, match_trials, unlabelled

MODALITIES = ("face", "voice")


@pytest.fixture
def corpus(tmp_path):
    """Make the official layout of {trial: label rows}; row r is (r/1000, -r/1000)."""

    def make(counts, name="VA_Estimation_Challenge"):
        folder = tmp_path / "annotations" / name / "Train_Set"
        for trial, count in counts.items():
            path = folder / f"{trial}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("valence,arousal\n" + "".join(f"{r / 1000},{-r / 1000}\n" for r in range(count)))
        return open_corpus(tmp_path / "annotations")

    return make


def features(count=20, names=MODALITIES):
    return {name: np.zeros((count, 2), np.float32) for name in names}


def matched(store, corpus, names=None):
    return match_trials(store, corpus, corpus.files if names is None else names, MODALITIES)


def test_a_trial_is_its_labels_at_its_features(make_store, corpus):
    found = matched(make_store({"x": features()}), corpus({"x": 20}))
    assert list(found.trials) == ["x"]
    trial = found.trials["x"]
    assert (trial.name, trial.stored, trial.rows) == ("x", "x", 20)
    assert np.array_equal(trial.labels, np.stack([np.arange(20), -np.arange(20)], 1).astype(np.float32) / 1000)
    assert trial.labelled.all()
    assert (found.without_features, found.without_labels, found.notes) == ((), (), ())


def test_the_last_part_of_the_stored_name_is_the_trials(make_store, corpus):
    store = make_store({"batch1/x": features(), "batch2/deep/y_left": features(), "z": features()})
    found = matched(store, corpus({"x": 20, "y_left": 20, "z": 20}))
    stored = {name: trial.stored for name, trial in found.trials.items()}
    assert stored == {"x": "batch1/x", "y_left": "batch2/deep/y_left", "z": "z"}
    assert found.without_labels == found.without_features == ()


def test_a_whole_name_goes_before_a_last_part(make_store, corpus):
    found = matched(make_store({"x": features(), "batch1/x": features()}), corpus({"x": 20}))
    assert found.trials["x"].stored == "x"
    assert found.without_labels == ("batch1/x",)


def test_a_last_part_that_two_trials_have_is_none(make_store, corpus):
    found = matched(make_store({"batch1/x": features(), "batch2/x": features()}), corpus({"x": 20}))
    assert not found.trials
    assert dict(found.ambiguous) == {"x": ("batch1/x", "batch2/x")}
    assert (found.without_features, found.without_labels) == ((), ())


def test_labels_in_folders_match_features_in_folders(make_store, tmp_path):
    path = tmp_path / "labels" / "batch1" / "x.csv"
    path.parent.mkdir(parents=True)
    path.write_text("valence,arousal\n0.1,0.2\n0.3,0.4\n")
    found = matched(make_store({"batch1/x": features(2), "x": features(2)}), open_corpus(tmp_path / "labels"))
    assert [trial.stored for trial in found.trials.values()] == ["batch1/x"]
    assert found.without_labels == ("x",)


def test_what_has_only_one_of_both_is_listed(make_store, corpus):
    found = matched(make_store({"x": features(), "b": features(), "a": features()}), corpus({"x": 20, "y": 20}))
    assert list(found.trials) == ["x"]
    assert found.without_features == ("y",)
    assert found.without_labels == ("a", "b")


def test_a_trial_that_lacks_a_modality_is_left_out_with_a_note(make_store, corpus):
    store = make_store({"x": features(), "y": features(names=("voice", "other")), "z": features(names=("other",))})
    found = matched(store, corpus({"x": 20, "y": 20, "z": 20}))
    assert list(found.trials) == ["x"]
    assert found.without_features == ("y", "z")
    assert found.notes == (
        "y: the store has no face; it is left out",
        "z: the store has no face, voice; it is left out",
    )
    assert found.without_labels == ()


def test_only_the_trials_that_are_asked_for(make_store, corpus):
    store = make_store({"x": features(), "y": features()})
    found = matched(store, corpus({"x": 20, "y": 20}), ["y"])
    assert list(found.trials) == ["y"]
    assert found.without_labels == ()


@pytest.mark.parametrize(("labels", "noted"), [(15, False), (25, False), (14, True), (26, True)])
def test_lengths_that_differ_by_more_than_five_rows_are_noted(make_store, corpus, labels, noted):
    annotated = corpus({"x": labels})
    found = match_trials(make_store({"batch1/x": features()}), annotated, annotated.files, MODALITIES, True)
    assert found.notes == ((f"x: {labels} label rows but 20 rows of features",) if noted else ())
    assert found.trials["x"].rows == labels


def test_rows_of_minus_five_are_not_labelled(make_store, corpus):
    annotated = corpus({"x": 4})
    Path(annotated.files["x"]).write_text("valence,arousal\n0.5,-5\n-5,-5\n-5,0.5\n0.5,0.5\n")
    trial = matched(make_store({"x": features(4)}), annotated).trials["x"]
    assert trial.labelled.tolist() == [False, False, False, True]
    assert trial.rows == 4


def test_labels_with_times_of_their_own_are_taken_at_the_frames(make_store, tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "x.csv").write_text("time,valence,arousal\n0,0,0\n1,1,-1\n")
    trial = matched(make_store({"x": features(26)}), open_corpus(tmp_path / "labels")).trials["x"]
    assert trial.rows == 26
    assert trial.labels[5] == pytest.approx([0.2, -0.2], abs=1e-6)


def test_wrong_labels_are_an_error_with_file_and_line(make_store, corpus):
    annotated = corpus({"x": 4})
    Path(annotated.files["x"]).write_text("valence,arousal\n0.5,0.5\n0.5,7\n")
    with pytest.raises(ValueError, match=r"x\.txt:3: .*7"):
        matched(make_store({"x": features(4)}), annotated)


def test_a_store_without_labels(make_store):
    store = make_store({"batch1/x": features(7), "y": features(3), "z": features(names=("face",))})
    trials, others = unlabelled(store, MODALITIES)
    assert list(trials) == ["batch1/x", "y"]
    assert others == ["z"]
    assert (trials["batch1/x"].stored, trials["batch1/x"].rows) == ("batch1/x", 7)
    assert not any(trial.labelled.any() or trial.labels.any() for trial in trials.values())


def test_an_empty_store(tmp_path, corpus):
    found = matched(FeatureStore(tmp_path / "empty.zarr", mode="a"), corpus({"x": 20}))
    assert (dict(found.trials), found.without_features, found.without_labels) == ({}, ("x",), ())


@pytest.mark.parametrize("shape", [(3, 2), (3, 1), (4,)])
def test_labels_and_flags_are_of_one_length(shape):
    with pytest.raises(ValueError, match=r"x: labels \(.*\) but 4 flags"):
        TrialSource("x", "x", np.zeros(shape, np.float32), np.ones(4, bool))


def test_a_last_part_that_two_trials_share_is_no_name(make_store, corpus):
    found = matched(make_store({"batch1/x": features(4), "batch2/x": features(4)}), corpus({"x": 4}))
    assert not found.trials
    assert any("several of this name: batch1/x, batch2/x" in note for note in found.notes)


def test_two_label_files_cannot_mean_one_trial(make_store, tmp_path):
    for name in ("x.csv", "batch1/x.csv"):
        (tmp_path / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "labels" / name).write_text("valence,arousal\n0,0\n0,0\n")
    with pytest.raises(ValueError, match=r"'batch1/x' and 'x' both mean trial 'batch1/x'"):
        matched(make_store({"batch1/x": features(2)}), open_corpus(tmp_path / "labels"))


@pytest.mark.parametrize(
    ("labels", "frames", "refused"),
    [(12, 150, True), (26, 20, True), (25, 20, False), (506, 500, True), (909, 900, False), (910, 900, True)],
)
def test_label_rows_that_are_not_frames_are_refused(make_store, corpus, labels, frames, refused):
    store, annotated = make_store({"x": features(frames)}), corpus({"x": labels})
    if refused:
        message = f"1 of 1 do not: x: {labels} label rows but {frames} rows of features; .*--allow-length-difference"
        with pytest.raises(ValueError, match=message):
            matched(store, annotated)
    allowed = match_trials(store, annotated, ["x"], MODALITIES, allow_length_difference=True)
    assert allowed.trials["x"].rows == labels


def test_rows_that_were_extracted_with_the_labels_are_held_against_the_frames(make_store, corpus):
    store = make_store({})
    track = {"time": np.arange(12) / 25}
    for name in MODALITIES:
        track |= {name: np.zeros((12, 2), np.float32), f"{name}_valid": np.ones(12, bool)}
    store.write("x", track, {"fingerprint": "small", "frames_decoded": 150})
    with pytest.raises(ValueError, match="x: 12 label rows but 150 frames"):
        matched(store, corpus({"x": 12}))


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize("stored", [COMPOSED, DECOMPOSED, f"batch1/{DECOMPOSED}", f"{COMPOSED} "])
@pytest.mark.parametrize("labelled", [COMPOSED, DECOMPOSED, f"{COMPOSED} "])
def test_names_that_look_the_same_are_the_same(make_store, corpus, stored, labelled):
    found = matched(make_store({stored: features()}), corpus({labelled: 20}))
    assert {name: trial.stored for name, trial in found.trials.items()} == {COMPOSED: stored}
    assert found.without_labels == ()


def test_other_upper_and_lower_case_is_named(make_store, corpus):
    found = matched(make_store({"batch1/Clip": features()}), corpus({"clip": 20}))
    assert not found.trials
    assert found.notes == ("clip: the store has batch1/Clip, which differs in case; rename one of them",)


def test_a_trial_whose_labels_touch_no_frame_is_named(make_store, tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "x.csv").write_text("time,valence,arousal\n1.5,0,0\n1.6,1,-1\n")
    found = matched(make_store({"x": features(26)}), open_corpus(tmp_path / "labels"))
    assert found.notes == ("x: its labels touch no frame (labels from 1.5 to 1.6 s, frames from 0 to 1 s)",)


def test_timed_labels_of_a_small_part_of_the_frames_are_asked_about(make_store, tmp_path):
    """Minutes, or a shift, on a short video; a label in every second frame of the whole of it is none of both."""
    (tmp_path / "labels").mkdir()
    for name, times in {"minutes": (0, 0.01), "shifted": (0.6, 1.6), "most": (0.1, 0.9), "gaps": (0, 1)}.items():
        rows = "".join(f"{time},0,0\n" for time in times)
        (tmp_path / "labels" / f"{name}.csv").write_text(f"time,valence,arousal\n{rows}")
    store = make_store({name: features(26) for name in ("minutes", "shifted", "most", "gaps")})
    assert matched(store, open_corpus(tmp_path / "labels")).notes == (
        "timed labels of minutes, shifted reach less than half of the frames (labels from 0 to 0.01 s, frames from 0 "
        "to 1 s): is `time` in seconds, from the beginning of the video?",
    )
