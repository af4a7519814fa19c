import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from avfuse.fusion.results.prediction_files import trial_path, writable, write_prediction

BOTH = ("valence", "arousal")
fuzz = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


def write(folder, trial, columns, values, valid=None):
    """At 25 frames/s; every row is real unless `valid` says otherwise."""
    rows = len(values)
    return write_prediction(
        folder, trial, columns, values, np.arange(rows) / 25, np.ones(rows, bool) if valid is None else valid
    )


def test_the_text(tmp_path):
    values = np.array([[0.1234567, -0.5], [1.5, -2.0], [-1e-9, 0.0]])
    path = write(tmp_path / "new", "batch1/10-60-1280x720", BOTH, values, np.array([True, False, True]))
    assert path == tmp_path / "new" / "batch1" / "10-60-1280x720.txt"
    expected = (
        b"time_s,valence,arousal,valid\n"
        b"0.000000,0.123457,-0.500000,1\n0.040000,1.000000,-1.000000,0\n0.080000,0.000000,0.000000,1\n"
    )
    assert path.read_bytes() == expected
    assert [found.name for found in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("task", BOTH)
def test_a_single_task(tmp_path, task):
    path = write(tmp_path, "a", (task,), np.array([[0.25], [-0.25]], np.float32))
    assert path.read_text() == f"time_s,{task},valid\n0.000000,0.250000,1\n0.040000,-0.250000,1\n"


def test_one_that_is_there_is_replaced(tmp_path):
    write(tmp_path, "a", BOTH, np.ones((9, 2)))
    path = write(tmp_path, "a", BOTH, np.zeros((0, 2)))
    assert path.read_text() == "time_s,valence,arousal,valid\n"


@fuzz
@given(values=arrays(np.float32, st.tuples(st.integers(1, 30), st.just(2)), elements=st.floats(-2, 2, width=32)))
def test_it_is_read_back(tmp_path, values):
    found = np.loadtxt(write(tmp_path, "a", BOTH, values), delimiter=",", skiprows=1, ndmin=2)
    np.testing.assert_allclose(found[:, 1:3], np.clip(values, -1, 1), atol=6e-7)
    np.testing.assert_allclose(found[:, 0], np.arange(len(values)) / 25, atol=6e-7)


def test_times_of_another_length_are_refused(tmp_path):
    with pytest.raises(ValueError, match="a: 3 predictions, 2 times and 3 flags"):
        write_prediction(tmp_path, "a", BOTH, np.zeros((3, 2)), np.zeros(2), np.ones(3, bool))


@pytest.mark.parametrize("trial", ["", "../a", "/a", "a/../../b", "a//b", ".a", "a\\b", "a\0"])
def test_nothing_leaves_the_folder(tmp_path, trial):
    with pytest.raises(ValueError, match="cannot name a trial"):
        write(tmp_path / "out", trial, BOTH, np.zeros((1, 2)))
    with pytest.raises(ValueError, match="cannot name a trial"):
        trial_path(tmp_path, trial, ".png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_refused(tmp_path, bad):
    values = np.zeros((5, 2))
    values[3, 1] = bad
    with pytest.raises(ValueError, match=r"^a: 1 of 5 rows not finite, the first is row 3$"):
        write(tmp_path, "a", BOTH, values)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 3), (5, 2, 1)])
def test_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"a: a prediction is an array \[T, 2\]"):
        writable("a", np.zeros(shape), 2)
