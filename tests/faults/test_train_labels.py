"""Labels that are not what training needs: `folds`, `extract`, `train` and `evaluate` say what they are."""

import unicodedata

import pytest

from avfuse.features_store.store import FeatureStore


@pytest.fixture
def corpus(plant_small, tmp_path):
    """A corpus to be changed."""
    return plant_small(tmp_path / "corpus")


def test_times_in_ms_are_an_error_with_trial_and_both_numbers(corpus, avfuse, train_words, tmp_path):
    folder = tmp_path / "timed"
    folder.mkdir()
    for number in range(8):
        scale = 1000 if number == 5 else 1
        rows = [f"{step / 2 * scale},0,{step / 10}" for step in range(10)]
        (folder / f"clip{number}.csv").write_text("\n".join(["time,valence,arousal", *rows]) + "\n")
    result = avfuse(*train_words(corpus, tmp_path / "run", "--annotations", folder, "--folds", 2))
    assert result.exit_code == 1
    assert "clip5: labels reach 4500 s, the video ends at 4.96 s: is `time` in seconds" in result.stderr


def test_twelve_rows_for_a_whole_clip_are_refused_and_may_be_allowed(corpus, avfuse, fit, train_words, tmp_path):
    path = corpus.labels("clip7")
    path.write_text("\n".join(path.read_text().splitlines()[:13]) + "\n")
    result = avfuse(*train_words(corpus, tmp_path / "run"))
    assert result.exit_code == 1
    assert "clip7: 12 label rows but 135 rows of features" in result.stderr
    fit(corpus, tmp_path / "run", "--epochs", 1, "--allow-length-difference")
    evaluated = avfuse("evaluate", "--run", tmp_path / "run", "--device", "cpu")
    assert evaluated.exit_code == 1
    assert "--allow-length-difference" in evaluated.stderr
    assert avfuse("evaluate", "--run", tmp_path / "run", "--allow-length-difference", "--device", "cpu").exit_code == 0


@pytest.mark.parametrize("folder", ["EXPR_Recognition_Challenge", "AU_Detection_Challenge"])
def test_labels_of_other_tasks_are_named(corpus, avfuse, train_words, tmp_path, folder):
    header = "AU1,AU2,AU4" if folder.startswith("AU") else "Neutral,Anger,Disgust"
    path = tmp_path / "others" / folder / "Train_Set" / "clip1.txt"
    path.parent.mkdir(parents=True)
    path.write_text(f"{header}\n0,0,0\n")
    annotations = ("--annotations", tmp_path / "others")
    for words in (
        ("folds", *annotations),
        train_words(corpus, tmp_path / "run", *annotations),
    ):
        result = avfuse(*words)
        assert result.exit_code == 1
        assert f"{folder} holds {folder.partition('_')[0]} labels" in result.stderr
        assert "valence and arousal are needed" in result.stderr.splitlines()[-1]


def test_names_as_macos_writes_them_train(corpus, fit, tmp_path):
    store = FeatureStore(corpus.store, mode="a")
    store.write("batch1/caf\u00e9", corpus.rows("clip7"), {"fingerprint": "planted"})
    store.remove("clip7")
    path = corpus.labels("clip7")
    path.rename(path.with_name(unicodedata.normalize("NFD", "caf\u00e9.TXT")))
    result = fit(corpus, tmp_path / "run", "--epochs", 1)
    assert "8 trials" in result.stderr
    assert (tmp_path / "run" / "predictions" / "batch1" / "caf\u00e9.txt").exists()


def test_two_trials_of_one_name_are_the_reason_that_is_given(corpus, avfuse, train_words, tmp_path):
    store = FeatureStore(corpus.store, mode="a")
    for number in (3, 7):
        for batch in ("batch1", "batch2"):
            store.write(f"{batch}/clip{number}", corpus.rows(f"clip{number}"), {"fingerprint": "planted"})
        store.remove(f"clip{number}")
    result = avfuse(*train_words(corpus, tmp_path / "run"))
    assert result.exit_code == 1
    assert "the store has several trials clip3: batch1/clip3, batch2/clip3" in result.stderr
    assert "has features in the store" not in result.stderr
