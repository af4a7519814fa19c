import numpy as np
import pytest

from avfuse.features_store.labels.corpus import Corpus, labels_of, open_corpus

FRAMES = "valence,arousal\n0.5,-0.5\n-5,-5\n"
TIMED = "time,valence,arousal\n0,0,0\n0.1,0.1,-0.1\n"


def write(path, text=FRAMES):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_official_layout(tmp_path):
    folder = tmp_path / "6th ABAW Annotations" / "VA_Estimation_Challenge"
    train = write(folder / "Train_Set" / "video2.txt")
    validation = write(folder / "Validation_Set" / "10-60-1280x720_right.txt")
    write(folder / "Validation_Set" / "._10-60-1280x720_right.txt", "junk")
    corpus = open_corpus(tmp_path)
    assert corpus.files == {"10-60-1280x720_right": validation, "video2": train}
    assert corpus.sets == {"10-60-1280x720_right": "Validation_Set", "video2": "Train_Set"}
    track = labels_of(corpus, "video2")
    assert track.trial == "video2"
    assert track.valid.tolist() == [True, False]


def test_a_file_a_trial_in_any_folders(tmp_path):
    files = {"a": "a.csv", "batch1/b.1": "batch1/b.1.CSV", "batch1/deep/c": "batch1/deep/c.txt"}
    paths = {trial: write(tmp_path / name, TIMED) for trial, name in files.items()}
    write(tmp_path / "batch1" / "._b.csv", "junk of macOS")
    write(tmp_path / ".trash" / "deep" / "d.csv", "junk")
    write(tmp_path / "subjects.csv", "trial,subject\na,x\n")
    write(tmp_path / "notes.md", "no labels")
    corpus = open_corpus(tmp_path)
    assert corpus == Corpus(tmp_path, paths, None)
    assert list(corpus.files) == sorted(files)
    track = labels_of(corpus, "batch1/b.1", np.array([0.0, 0.05, 0.2]))
    assert track.trial == "batch1/b.1"
    assert track.valid.tolist() == [True, True, False]
    np.testing.assert_allclose(track.values[:2], [[0.0, 0.0], [0.05, -0.05]], atol=1e-7)


def test_links_in_a_circle(tmp_path):
    write(tmp_path / "a.csv")
    (tmp_path / "up").symlink_to(tmp_path)
    assert list(open_corpus(tmp_path).files) == ["a"]


def test_a_hidden_root_and_a_relative_one(tmp_path, monkeypatch):
    write(tmp_path / ".labels" / "b" / "a.csv")
    assert list(open_corpus(tmp_path / ".labels").files) == ["b/a"]
    monkeypatch.chdir(tmp_path / ".labels")
    assert list(open_corpus(type(tmp_path)(".")).files) == ["b/a"]


def test_what_cannot_be_a_corpus(tmp_path):
    with pytest.raises(ValueError, match="neither a folder VA_Estimation_Challenge nor a label file") as error:
        open_corpus(tmp_path)
    assert "'valence,arousal' or 'time,valence,arousal'" in str(error.value)
    with pytest.raises(OSError, match="absent"):
        open_corpus(tmp_path / "absent")
    write(tmp_path / "a.csv")
    write(tmp_path / "b.csv", "V,A\n0,0\n")
    with pytest.raises(ValueError, match=r"b\.csv:1: the first line is 'valence,arousal' or"):
        open_corpus(tmp_path)


def test_two_files_of_one_trial_and_a_link_to_nowhere(tmp_path):
    (tmp_path / "b.csv").symlink_to(tmp_path / "gone")
    with pytest.raises(OSError, match=r"b\.csv"):
        open_corpus(tmp_path)
    (tmp_path / "b.csv").unlink()
    write(tmp_path / "a.csv")
    write(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="trial 'a' has two label files"):
        open_corpus(tmp_path)


def test_labels_that_cannot_be_had(tmp_path):
    write(tmp_path / "timed.csv", TIMED)
    write(tmp_path / "empty.csv", "valence,arousal\n")
    write(tmp_path / "bad.csv", "valence,arousal\n0,0\n0\n")
    corpus = open_corpus(tmp_path)
    with pytest.raises(ValueError, match=r"timed\.csv has times of its own: the times of the frames are needed"):
        labels_of(corpus, "timed")
    with pytest.raises(ValueError, match=r"empty\.csv:1: no row follows"):
        labels_of(corpus, "empty")
    with pytest.raises(ValueError, match=r"bad\.csv:3: "):
        labels_of(corpus, "bad")
    with pytest.raises(ValueError, match="no labels of the trial 'other'"):
        labels_of(corpus, "other")


def test_a_corpus_is_checked(tmp_path):
    with pytest.raises(ValueError, match="sorted"):
        Corpus(tmp_path, {}, None)
    with pytest.raises(ValueError, match="every trial"):
        Corpus(tmp_path, {"a": tmp_path}, {})
