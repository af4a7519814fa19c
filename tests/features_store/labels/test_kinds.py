"""Labels of every kind: their files, and where each lies in a tree that has all of them."""

import numpy as np
import pytest

from avfuse.features_store.labels.annotations import annotation_files, count_rows, read_labels
from avfuse.features_store.labels.corpus import labels_of, open_any_corpus, open_corpus
from avfuse.features_store.labels.kinds import AU, EXPR, KINDS, VA, LabelKind, kind_of_folder
from avfuse.features_store.labels.timed import is_timed, read_timed

ROWS = {"VA": ("0.5,-0.5", "-5,-5"), "EXPR": ("7", "-1"), "AU": ("0,1,0,1,0,1,0,1,0,1,0,1", ",".join(["-1"] * 12))}


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_classes(tmp_path):
    path = write(tmp_path / "a.txt", EXPR.header, "0", "7", "-1", " 3 ", "4.0", "-1.0")
    track = read_labels(path, EXPR)
    assert track.values.tolist() == [[0], [7], [-1], [3], [4], [-1]]
    assert track.valid.tolist() == [True, True, False, True, True, False]
    assert count_rows(path, EXPR) == 6


def test_units_are_masked_one_by_one(tmp_path):
    rows = ["0,1,0,1,0,1,0,1,0,1,0,1", "-1,1,0,1,0,1,0,1,0,1,0,-1", ",".join(["-1"] * 12)]
    track = read_labels(write(tmp_path / "a.txt", AU.header.replace(",", ", "), *rows), AU)
    assert track.values.shape == (3, 12)
    assert track.values[1, [0, 1, 11]].tolist() == [-1, 1, -1]
    assert track.valid.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        (EXPR, "8", "8.0 is neither a class, 0 to 7 nor -1"),
        (EXPR, "2.5", "2.5 is neither a class"),
        (EXPR, "-5", "-5.0 is neither"),
        (EXPR, "1,2", r"a row is one number, a class, 0 to 7, got '1,2'"),
        (EXPR, "Anger", "a row is one number"),
        (AU, "0,1", "a row is 12 numbers 'AU1,"),
        (AU, "0,1,0,1,0,1,0,1,0,1,0,2", "2.0 is neither 0 or 1 nor -1"),
        (AU, "0,1,0,1,0,1,0,1,0,1,0,0.5", "0.5 is neither"),
    ],
)
def test_errors_name_file_and_line(tmp_path, kind, row, message):
    path = write(tmp_path / "bad.txt", kind.header, ROWS[kind.name][0], row)
    with pytest.raises(ValueError, match=rf"bad\.txt:3: {message}"):
        read_labels(path, kind)


def test_a_header_of_fewer_classes_is_refused(tmp_path):
    path = write(tmp_path / "a.txt", EXPR.header.removesuffix(",Other"), "0")
    with pytest.raises(ValueError, match=r"a\.txt:1: the first line is 'Neutral,.*,Other', got"):
        read_labels(path, EXPR)


# As the editions call them.
FOLDERS = {
    "VA_Estimation_Challenge": "VA", "EXPR_Recognition_Challenge": "EXPR", "EXPR_Classification_Challenge": "EXPR",
    "AU_Detection_Challenge": "AU", "EXPR_Set": "EXPR", "AU_Set": "AU", "MTL_Challenge": "MTL", "Train_Set": None,
}  # fmt: skip


@pytest.mark.parametrize("root", ["6th ABAW Annotations", "5th_ABAW_Annotations", "9th ABAW Annotations", "."])
@pytest.mark.parametrize("expr", [name for name, kind in FOLDERS.items() if kind == "EXPR"])
def test_side_by_side_each_is_found(tmp_path, root, expr):
    folders = {"VA": VA.folder, "EXPR": expr, "AU": AU.folder}
    for name, folder in folders.items():
        for number, part in enumerate(("Train_Set", "Validation_Set")):
            trial = f"{name.lower()}{number}_left"
            write(tmp_path / root / folder / part / f"{trial}.txt", KINDS[name].header, *ROWS[name])
            write(tmp_path / root / folder / part / f"._{trial}.txt", "junk of macOS")
    for name, folder in folders.items():
        for place in (tmp_path, tmp_path / root / folder):
            corpus = open_corpus(place, KINDS[name])
            assert corpus.sets == {f"{name.lower()}0_left": "Train_Set", f"{name.lower()}1_left": "Validation_Set"}
            assert labels_of(corpus, f"{name.lower()}0_left").valid.tolist() == [True, False]
    assert open_any_corpus(tmp_path).kind == VA
    assert open_any_corpus(tmp_path / root / expr).kind == EXPR


def test_folders():
    assert {name: kind_of_folder(name) for name in FOLDERS} == FOLDERS


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("other", KINDS.values(), ids=KINDS)
def test_labels_of_another_kind_are_named(tmp_path, kind, other):
    write(tmp_path / "tree" / other.folder / "Train_Set" / "a.txt", other.header, *ROWS[other.name])
    write(tmp_path / "files" / "a.csv", other.header, *ROWS[other.name])
    write(tmp_path / kind.folder / "Train_Set" / "a.txt", other.header, *ROWS[other.name])
    for root in ("tree", "files", kind.folder):
        if kind is other:
            assert list(open_corpus(tmp_path / root, kind).files) == ["a"]
            continue
        with pytest.raises(ValueError, match=rf"holds {other.name} labels \({other.about}\), and {kind.about} are"):
            open_corpus(tmp_path / root, kind)


def test_two_editions_are_refused(tmp_path):
    for name in ("EXPR_Recognition_Challenge", "EXPR_Classification_Challenge"):
        write(tmp_path / name / "Train_Set" / "a.txt", EXPR.header, "0")
    with pytest.raises(ValueError, match="several annotations"):
        annotation_files(tmp_path, EXPR)


def test_an_own_corpus_is_a_file_a_trial(tmp_path):
    write(tmp_path / "b" / "x.csv", AU.header, *ROWS["AU"])
    write(tmp_path / "subjects.csv", "trial,subject", "b/x,1")
    corpus = open_corpus(tmp_path, AU)
    assert (list(corpus.files), corpus.sets) == (["b/x"], None)
    assert open_any_corpus(tmp_path) == corpus


def test_only_real_numbers_have_times(tmp_path):
    pain = LabelKind("PAIN", "pain", ("pain",), "real", lowest=0.0, highest=10.0)
    path = write(tmp_path / "a.csv", "time,pain", "0,3", "0.1,", "0.2,10")
    assert is_timed(path, pain)
    assert read_timed(path, pain).values.tolist() == [[3], [-5], [10]]
    track = labels_of(open_corpus(tmp_path, pain), "a", np.array([0.0, 0.2]))
    assert track.values.tolist() == [[3], [10]]
    timed = write(tmp_path / "b.csv", f"time,{EXPR.header}", "0,3")
    with pytest.raises(ValueError, match="the first line is 'Neutral"):
        is_timed(timed, EXPR)
    with pytest.raises(ValueError, match=r"bad\.csv:2: 11.0 is neither in \[0, 10\] nor -5"):
        read_labels(write(tmp_path / "bad.csv", "pain", "11"), pain)


def test_names_are_checked():
    with pytest.raises(ValueError, match="labels X need different names"):
        LabelKind("X", "x", ("a", "a"), "real")
