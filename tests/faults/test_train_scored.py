"""Every labelled row of the held-out trials is scored, whatever its features are; and features of any scale."""

import numpy as np
import pytest

from avfuse.fusion.artifacts.state import read_metrics


@pytest.fixture
def corpus(plant_small, tmp_path):
    """A corpus to be changed; clip3 (105 labelled rows of 115) and clip7 (135 rows) are held out."""
    return plant_small(tmp_path / "corpus")


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("voice", ("--modalities", "voice")),
        ("voice", ("--set", "rows_in_loss=all")),
        ("face", ("--modalities", "face")),
    ],
)
def test_held_out_trials_without_sound_or_face_are_scored(corpus, fit, tmp_path, lost, words):
    for name in ("clip3", "clip7"):
        nothing = np.zeros_like(corpus.rows(name)[lost])
        corpus.rewrite(name, **{lost: nothing, f"{lost}_valid": np.zeros(len(nothing), bool)})
    fit(corpus, tmp_path / "run", "--epochs", 1, *words)
    found = read_metrics(tmp_path / "run")
    assert (found["frames"], found["trials"]) == (105 + 135, 2)


def test_held_out_trials_of_one_labelled_row_each_are_scored_together(corpus, fit, tmp_path):
    for name in ("clip3", "clip7"):
        keep_labels(corpus.labels(name), 1)
    result = fit(corpus, tmp_path / "run", "--epochs", 1)
    assert "2 labelled frames of 2 trials" in result.stdout + result.stderr
    assert read_metrics(tmp_path / "run")["mean_trial_ccc_valence"] is None


def test_held_out_trials_of_one_row_each_are_scored_together(corpus, fit, tmp_path):
    for name in ("clip3", "clip7"):
        corpus.rewrite(name, **{array: rows[:1] for array, rows in corpus.rows(name).items()})
        path = corpus.labels(name)
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    fit(corpus, tmp_path / "run", "--epochs", 1)
    found = read_metrics(tmp_path / "run")
    assert (found["frames"], found["trials"]) == (2, 2)


def test_one_labelled_row_in_all_has_no_ccc(corpus, avfuse, train_words, tmp_path):
    keep_labels(corpus.labels("clip3"), 1)
    keep_labels(corpus.labels("clip7"), 0)
    result = avfuse(*train_words(corpus, tmp_path / "run"))
    assert result.exit_code == 1
    assert "the validation side of fold 0 has one labelled frame, and a CCC needs two" in result.stderr


def test_only_trials_with_a_labelled_frame_are_counted(corpus, fit, tmp_path):
    keep_labels(corpus.labels("clip7"), 0)
    result = fit(corpus, tmp_path / "run", "--epochs", 1)
    assert read_metrics(tmp_path / "run")["trials"] == 1
    assert "105 labelled frames of 1 trial" in result.stdout + result.stderr


def test_a_feature_times_a_trillionth_is_the_same_feature(corpus, avfuse, tmp_path):
    given = ("train", "--fold", 0, "--store", corpus.store, "--annotations", corpus.annotations, "--device", "cpu")
    concat = ("--preset", "concat", "--modalities", "face,voice", "--epochs", 12, "--set", "warmup_epochs=1")
    quick = [word for each in ("window_frames=60", "hop_frames=20", "lr=0.03") for word in ("--set", each)]
    scores = []
    for scale in (1, 1e-12):
        for number in range(8):
            rows = corpus.rows(f"clip{number}")["face"]
            corpus.rewrite(f"clip{number}", face=(rows * scale).astype(np.float32))
        run = tmp_path / f"times{scale}"
        result = avfuse(*given, *concat, *quick, "--out", run, "--no-plots", "--no-tensorboard")
        assert result.exit_code == 0, result.stderr
        scores.append(read_metrics(run)["ccc_valence"])
    assert scores[0] > 0.3
    assert scores[1] == pytest.approx(scores[0], abs=1e-3)


def keep_labels(path, count):
    """Mask every row but the first `count`."""
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *rows[:count], *["-5,-5"] * (len(rows) - count)]) + "\n")
