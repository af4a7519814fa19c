import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avfuse.features_store.labels import annotations
from avfuse.features_store.labels.annotations import LabelTrack, annotation_files, count_rows, read_labels
from avfuse.features_store.labels.corpus import open_corpus

HEADER = b"valence,arousal\n"
fuzz = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_values_and_masks(tmp_path):
    path = write(tmp_path / "1-30.txt", HEADER + b"0.25,-1\n-5,-5\n0.5,-5.0\n-5,1e-1\n1, .5\n+1.,-0.0\n")
    track = read_labels(path)
    assert track.trial == "1-30"
    assert track.values.dtype == np.float32
    assert track.values[0].tolist() == [0.25, -1]
    assert track.valid.tolist() == [True, False, False, False, True, True]
    assert count_rows(path) == 6


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfvalence,arousal\r\n0,0\r\n1,1\r\n",
        b"valence,arousal\n0,0\n1,1",
        b"valence,arousal\n0,0\n1,1\n\n\r\n",
        b"valence, arousal\n0, 0\n1 ,\t1\n",
    ],
)
def test_tolerated(tmp_path, content):
    path = write(tmp_path / "a.txt", content)
    assert read_labels(path).values.tolist() == [[0, 0], [1, 1]]
    assert count_rows(path) == 2


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", 1),
        (b"arousal,valence\n0,0", 1),
        (b"Valence,Arousal\n0,0", 1),
        (b" valence,arousal\n0,0", 1),
        (b"0,0\n", 1),
        (HEADER + b"0,0\n0.5\n", 3),
        (HEADER + b"0,0,0\n", 2),
        (HEADER + b"0,\n", 2),
        (HEADER + b"0,0\n\n0,0\n", 3),
        (HEADER + b"0,1.0001\n", 2),
        (HEADER + b"-5,3\n", 2),
        (HEADER + b"-4.9,0\n", 2),
        (HEADER + b"nan,0\n", 2),
        (HEADER + b"inf,0\n", 2),
        (HEADER + b"1e999,0\n", 2),
        (HEADER + b"0_1,0\n", 2),
        (HEADER + b"0x1,0\n", 2),
        (HEADER + b"\xff,0\n", 2),
        (HEADER + "٣,0\n".encode(), 2),
    ],
)
def test_errors_name_file_and_line(tmp_path, content, line):
    path = write(tmp_path / "bad.txt", content)
    with pytest.raises(ValueError, match=rf"bad\.txt:{line}: "):
        read_labels(path)


def read_or_value_error(path):
    try:
        track = read_labels(path)
    except ValueError as error:
        assert f"{path}:" in str(error)  # noqa: PT017 - either is right
        return
    assert len(track.valid) == count_rows(path)
    magnitudes = np.abs(track.values[track.valid])
    assert (magnitudes <= 1).all()


@fuzz
@given(content=st.binary(max_size=200))
def test_fuzz_bytes(tmp_path, content):
    read_or_value_error(write(tmp_path / "a.txt", content))
    read_or_value_error(write(tmp_path / "a.txt", HEADER + content))


@fuzz
@given(rows=st.lists(st.tuples(*[st.floats() | st.sampled_from([-5, 0, 1, "", "x", "1_0"])] * 2)))
def test_fuzz_rows(tmp_path, rows):
    text = "".join(f"{valence},{arousal}\n" for valence, arousal in rows)
    read_or_value_error(write(tmp_path / "a.txt", HEADER + text.encode()))


@fuzz
@given(
    rows=st.lists(st.tuples(*[st.floats(-1, 1, width=32)] * 2), min_size=1),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_round_trip(tmp_path, rows, ending):
    lines = ["valence,arousal", *(f"{valence!r},{arousal!r}" for valence, arousal in rows)]
    track = read_labels(write(tmp_path / "a.txt", ending.join(lines).encode()))
    assert (track.values == np.array(rows, np.float32)).all()
    assert track.valid.all()


def outcome(path):
    """What a reader makes of a file: its values, or its words."""
    try:
        track = read_labels(path)
    except ValueError as error:
        return str(error)
    return track.values.tolist(), track.valid.tolist()


@settings(fuzz, max_examples=300)
@given(
    rows=st.lists(
        st.lists(
            st.sampled_from(["0", "-5", "1", ".5", "1.", "-1e-3", "+0.25", "0.1 ", " 0", "\r0", "0\r"])
            | st.floats(-1, 1).map(repr)
            | st.text(b"0123456789.+-eE \t\r\x0b_naif,\n".decode(), max_size=4),
            min_size=1,
            max_size=3,
        ),
        max_size=6,
    )
)
def test_the_quick_way_is_the_slow_way(tmp_path, rows):
    path = write(tmp_path / "a.txt", HEADER + "\n".join(map(",".join, rows)).encode())
    quick = outcome(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(annotations, "plain_numbers", lambda *_: None)
        assert outcome(path) == quick


def test_track_is_checked():
    with pytest.raises(ValueError, match="3 validity"):
        LabelTrack("a", np.zeros((2, 2), np.float32), np.ones(3, np.bool_))


@pytest.mark.parametrize("above", ["", "8th ABAW/annotations"])
@pytest.mark.parametrize("given_root", ["corpus", "corpus/VA"])
def test_found_below_any_root(tmp_path, above, given_root):
    folder = tmp_path / "corpus" / above / "VA_Estimation_Challenge"
    train = write(folder / "Train_Set" / "b.1.txt", HEADER)
    valid = write(folder / "Validation_Set" / "a_left.txt", HEADER)
    write(folder / "Train_Set" / "._b.1.txt", b"junk of macOS")
    write(tmp_path / "corpus" / "EXPR_Recognition_Challenge" / "Train_Set" / "x.txt", b"")
    root = folder if given_root.endswith("VA") else tmp_path / "corpus"
    assert annotation_files(root) == {"a_left": valid, "b.1": train}
    assert list(annotation_files(root)) == ["a_left", "b.1"]


def test_not_there(tmp_path):
    with pytest.raises(ValueError, match="holds no folder VA_Estimation_Challenge"):
        annotation_files(tmp_path)
    (tmp_path / "VA_Estimation_Challenge" / "Train_Set").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds no label file"):
        annotation_files(tmp_path)
    with pytest.raises(OSError, match="absent"):
        annotation_files(tmp_path / "absent")


def test_twice(tmp_path):
    for name in ("Train_Set", "Validation_Set"):
        write(tmp_path / "VA_Estimation_Challenge" / name / "a.txt", HEADER)
    with pytest.raises(ValueError, match="'a' is in both sets"):
        annotation_files(tmp_path)
    for name in ("6th", "8th"):
        write(tmp_path / "all" / name / "VA_Estimation_Challenge" / "Train_Set" / "a.txt", HEADER)
    with pytest.raises(ValueError, match="several annotations"):
        annotation_files(tmp_path / "all")


def test_links_in_a_circle(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="no folder"):
        annotation_files(tmp_path)


def test_a_link_that_leads_up_below_the_root_is_followed_once(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    found = [[folder.name for folder in level] for level in annotations.folder_levels(tmp_path)]
    assert found == [["a"], ["b"], []]


def test_the_folder_of_the_sets_may_have_any_name(tmp_path):
    path = write(tmp_path / "mine" / "Train_Set" / "a.txt", HEADER)
    assert annotation_files(tmp_path / "mine") == {"a": path}
    (tmp_path / "VA_Estimation_Challenge").mkdir()
    with pytest.raises(ValueError, match="VA_Estimation_Challenge holds no label file"):
        annotation_files(tmp_path / "VA_Estimation_Challenge")


def test_a_folder_that_several_names_lead_to_goes_by_the_first(tmp_path):
    (tmp_path / "m" / "inside").mkdir(parents=True)
    for name in "zfbydkwc":
        (tmp_path / name).symlink_to(tmp_path / "m")
    found = [[path.relative_to(tmp_path).as_posix() for path in level] for level in annotations.folder_levels(tmp_path)]
    assert found == [["b"], ["b/inside"], []]


def test_two_links_to_one_folder(tmp_path):
    write(tmp_path / "real" / "VA_Estimation_Challenge" / "Train_Set" / "a.txt", HEADER)
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    assert list(annotation_files(tmp_path)) == ["a"]


EXPR_HEADER = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
AU_HEADER = "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"


def write_file(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


class TestOtherTasks:
    """Labels of expressions and action units are named where valence and arousal are meant."""

    @pytest.mark.parametrize(
        ("folder", "header", "task"),
        [
            ("EXPR_Recognition_Challenge", EXPR_HEADER, "EXPR"),
            ("EXPR_Classification_Challenge", EXPR_HEADER.removesuffix(",Other"), "EXPR"),
            ("AU_Detection_Challenge", AU_HEADER, "AU"),
            ("VA_Estimation_Challenge", EXPR_HEADER, "EXPR"),
            ("VA_Estimation_Challenge", AU_HEADER, "AU"),
        ],
    )
    @pytest.mark.parametrize("root", ["", "folder"])
    @pytest.mark.parametrize("find", [annotation_files, open_corpus])
    def test_are_named(self, tmp_path, folder, header, task, root, find):
        write_file(tmp_path / folder / "Train_Set" / "clip.txt", header, "0")
        at = tmp_path / folder if root else tmp_path
        with pytest.raises(ValueError, match=f"holds {task} labels .*valence and arousal are needed"):
            find(at)

    @pytest.mark.parametrize(("header", "task"), [(EXPR_HEADER, "EXPR"), (AU_HEADER.replace(",", ", "), "AU")])
    @pytest.mark.parametrize("find", [annotation_files, open_corpus])
    @pytest.mark.parametrize("root", ["", "Train_Set"])
    def test_are_named_in_folders_of_any_name(self, tmp_path, header, task, find, root):
        write_file(tmp_path / "Train_Set" / "clip.txt", header, "0")
        with pytest.raises(ValueError, match=rf"clip\.txt:1 holds {task} labels"):
            find(tmp_path / root)

    def test_may_lie_beside(self, tmp_path):
        write_file(tmp_path / "VA_Estimation_Challenge" / "Train_Set" / "clip.txt", "valence,arousal", "0,0")
        write_file(tmp_path / "EXPR_Recognition_Challenge" / "Train_Set" / "clip.txt", EXPR_HEADER, "0")
        write_file(tmp_path / "AU_Detection_Challenge" / "Train_Set" / "clip.txt", AU_HEADER, "0")
        assert list(annotation_files(tmp_path)) == ["clip"]
        assert list(open_corpus(tmp_path).files) == ["clip"]


@pytest.mark.parametrize("name", ["clip.TXT", "clip.Txt", "clip.csv", "clip.CSV", "clip .txt", "clip.txt "])
def test_suffixes_in_any_case_and_spaces_are_matched(tmp_path, name):
    write_file(tmp_path / "Train_Set" / name, "valence,arousal", "0,0")
    assert list(annotation_files(tmp_path)) == ["clip"]


def test_labels_in_a_file_of_another_suffix_are_named(tmp_path):
    write_file(tmp_path / "Train_Set" / "clip.txt", "valence,arousal", "0,0")
    write_file(tmp_path / "Train_Set" / "clip2.dat", "valence,arousal", "0,0")
    write_file(tmp_path / "Train_Set" / "README.md", "anything")
    with pytest.raises(ValueError, match=r"clip2\.dat begins like a label file"):
        annotation_files(tmp_path)


@pytest.mark.parametrize("names", [("clip.txt", "clip.TXT"), ("clip.txt", "clip.csv"), ("\u00e9.txt", "e\u0301.txt")])
def test_two_files_of_one_trial_are_named(tmp_path, names):
    for name in names:
        write_file(tmp_path / "Train_Set" / name, "valence,arousal", "0,0")
    with pytest.raises(ValueError, match="has two label files"):
        annotation_files(tmp_path)
