import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avfuse.features_store.schema import subject_of
from avfuse.fusion.folds.subjects import read_groups, subjects_of


@pytest.mark.parametrize(
    ("subject", "trials"),
    [
        ("video59", ["video59", "video59_left", "video59_right"]),
        ("10-60-1280x720", ["10-60-1280x720", "10-60-1280x720_right"]),
        ("video86", ["video86_1", "video86_2", "video86_12", "video86_3_left"]),
        ("122-60-1920x1080", ["122-60-1920x1080-1", "122-60-1920x1080-2", "122-60-1920x1080-3_left"]),
        ("walk", ["walk_part1", "walk-part2", "walk_pt1", "walk_Part_3", "walk-pt-10", "walk_left_part2"]),
        ("batch1/video86", ["batch1/video86_1", "batch1/video86_2_right"]),
        ("105", ["105", "105_left"]),
    ],
)
def test_names_that_show_a_subject(subject, trials):
    assert {subject_of(trial) for trial in trials} == {subject}


@pytest.mark.parametrize(
    "trial",
    ["trial_001", "clip_2", "session-1", "1-30-1280x720", "video1", "part1", "apart1", "_left", "a/_left", "", "clip1"],
)
def test_names_that_show_none(trial):
    assert subject_of(trial) == trial


@settings(deadline=None)
@given(trial=st.text(max_size=30))
def test_a_subject_is_its_own(trial):
    subject = subject_of(trial)
    assert trial.startswith(subject)
    assert subject_of(subject) == subject
    assert bool(subject) == bool(trial)


def test_auto_groups_where_two_trials_share_a_subject():
    alone = ["a_left", "b", "video1_1"]
    assert subjects_of(alone, "auto", None) == ("none", {trial: trial for trial in alone})
    assert subjects_of(alone, "subject", None) == ("subject", {"a_left": "a", "b": "b", "video1_1": "video1"})
    assert subjects_of([*alone, "a_right"], "auto", None)[0] == "subject"
    assert subjects_of([*alone, "a_right"], "none", None)[0] == "none"
    assert subjects_of(["a", "b"], "auto", {"a": "x", "b": "x", "c": "y"}) == ("file", {"a": "x", "b": "x"})


@pytest.fixture
def table(tmp_path):
    def write(content):
        path = tmp_path / "groups.csv"
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize(
    "content",
    [
        b"trial,subject\na,x\nb/c,y\n",
        b"\xef\xbb\xbftrial,subject\r\na,x\r\nb/c,y\r\n\r\n",
        b'trial, subject\n"a", x \nb/c,"y"',
    ],
)
def test_a_table(table, content):
    assert read_groups(table(content)) == {"a": "x", "b/c": "y"}


@pytest.mark.parametrize(
    ("content", "line", "word"),
    [
        (b"", 1, "first line"),
        (b"\n", 1, "first line"),
        (b"a,x\n", 1, "first line"),
        (b"subject,trial\n", 1, "first line"),
        (b"trial,subject\na,x\nb\n", 3, "a row is"),
        (b"trial,subject\na,x,y\n", 2, "a row is"),
        (b"trial,subject\na,\n", 2, "a row is"),
        (b"trial,subject\n,x\n", 2, "a row is"),
        (b"trial,subject\n\na,x\n", 2, "a row is"),
        (b"trial,subject\na,x\na,x\n", 3, "'a' is given twice"),
        (b"trial,subject\na,\xff\n", 2, "not UTF-8"),
        (b'trial,subject\na,x\n"b,y\n', 3, "unexpected end"),
        (b"trial,subject\ra,x\n", 1, "new-line"),
    ],
)
def test_errors_name_file_and_line(table, content, line, word):
    with pytest.raises(ValueError, match=rf"groups\.csv:{line}: .*{word}"):
        read_groups(table(content))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=80) | st.text('ab,"\n\r\0', max_size=30).map(str.encode), headed=st.booleans())
def test_fuzz(table, content, headed):
    path = table(b"trial,subject\n" * headed + content)
    try:
        groups = read_groups(path)
    except ValueError as error:
        assert f"{path}:" in str(error)  # noqa: PT017 - either is right
        return
    assert all(groups) and all(groups.values())  # noqa: PT018
