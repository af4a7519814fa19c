import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from avfuse.features_store.labels import read_labels
from avfuse.fusion.prediction_files import trial_path, writable, write_prediction

BOTH = ("valence", "arousal")
fuzz = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


def test_the_text(tmp_path):
    values = np.array([[0.1234567, -0.5], [1.5, -2.0], [-1e-9, 0.0]])
    path = write_prediction(tmp_path / "new", "batch1/10-60-1280x720", BOTH, values)
    assert path == tmp_path / "new" / "batch1" / "10-60-1280x720.txt"
    expected = b"valence,arousal\n0.123457,-0.500000\n1.000000,-1.000000\n0.000000,0.000000\n"
    assert path.read_bytes() == expected
    assert [found.name for found in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("task", BOTH)
def test_a_single_task(tmp_path, task):
    path = write_prediction(tmp_path, "a", (task,), np.array([[0.25], [-0.25]], np.float32))
    assert path.read_text() == f"{task}\n0.250000\n-0.250000\n"


def test_one_that_is_there_is_replaced(tmp_path):
    write_prediction(tmp_path, "a", BOTH, np.ones((9, 2)))
    path = write_prediction(tmp_path, "a", BOTH, np.zeros((0, 2)))
    assert path.read_text() == "valence,arousal\n"


@fuzz
@given(values=arrays(np.float32, st.tuples(st.integers(1, 30), st.just(2)), elements=st.floats(-2, 2, width=32)))
def test_labels_read_it_back(tmp_path, values):
    track = read_labels(write_prediction(tmp_path, "a", BOTH, values))
    np.testing.assert_allclose(track.values, np.clip(values, -1, 1), atol=6e-7)
    assert track.valid.all()


@pytest.mark.parametrize("trial", ["", "../a", "/a", "a/../../b", "a//b", ".a", "a\\b", "a\0"])
def test_nothing_leaves_the_folder(tmp_path, trial):
    with pytest.raises(ValueError, match="cannot name a trial"):
        write_prediction(tmp_path / "out", trial, BOTH, np.zeros((1, 2)))
    with pytest.raises(ValueError, match="cannot name a trial"):
        trial_path(tmp_path, trial, ".png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(tmp_path, bad):
    values = np.zeros((5, 2))
    values[3, 1] = bad
    with pytest.raises(ValueError, match=r"^a: 1 of 5 rows are not finite, the first is row 3$"):
        write_prediction(tmp_path, "a", BOTH, values)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 3), (5, 2, 1)])
def test_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"a: a prediction is an array \[T, 2\]"):
        writable("a", np.zeros(shape), 2)
