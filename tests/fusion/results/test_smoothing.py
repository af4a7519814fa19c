import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from avfuse.fusion.results.smoothing import NONE, Smoothing, parse_smoothing, smooth

FILTERS = [
    parse_smoothing(text) for text in ("none", "ma:1", "ma:7", "ma:7,13", "savgol:5", "savgol:15", "savgol:5,15")
]


@pytest.mark.parametrize(
    ("text", "kind", "frames"),
    [("none", "none", ()), ("ma:7", "ma", (7,)), ("ma:7,13", "ma", (7, 13)), ("savgol:15", "savgol", (15,))],
)
def test_parse(text, kind, frames):
    smoothing = parse_smoothing(text)
    assert smoothing == Smoothing(kind, frames)
    assert str(smoothing) == text


@pytest.mark.parametrize(
    "text", ["", "ma", "ma:", "ma:x", "ma:-7", "ma:7,", "ma:7,9,11", "MA:7", "median:7", "ma:7.0", "none:3", "ma:7\n"]
)
def test_what_is_no_smoothing(text):
    with pytest.raises(ValueError, match="smoothing is none, ma:K or savgol:K"):
        parse_smoothing(text)


@pytest.mark.parametrize("text", ["ma:8", "ma:0", "ma:7,12", "savgol:6", "savgol:3", "savgol:1"])
def test_windows_are_odd_and_long_enough(text):
    with pytest.raises(ValueError, match=rf"^{text}: a window of (ma|savgol) is an odd number of rows, [15] or more$"):
        parse_smoothing(text)


@pytest.mark.parametrize(("kind", "frames"), [("none", (3,)), ("ma", ()), ("box", (3,))])
def test_no_smoothing_is_half_given(kind, frames):
    with pytest.raises(ValueError, match="smoothing is none"):
        Smoothing(kind, frames)


def test_moving_average_shrinks_at_the_ends():
    values = np.array([[0.0], [3.0], [6.0], [3.0], [9.0]])
    assert smooth(values, parse_smoothing("ma:3"))[:, 0].tolist() == [1.5, 3.0, 4.0, 6.0, 6.0]


def test_each_task_has_its_window():
    values = np.zeros((31, 2))
    values[15] = 1
    smoothed = smooth(values, parse_smoothing("ma:7,13"))
    assert (smoothed > 0).sum(axis=0).tolist() == [7, 13]
    assert smoothed.sum(axis=0) == pytest.approx([1, 1])


@pytest.mark.parametrize("width", [1, 3])
def test_windows_are_as_many_as_tasks(width):
    with pytest.raises(ValueError, match=rf"ma:7,13 has 2 windows, but the predictions have {width} column"):
        smooth(np.zeros((20, width)), parse_smoothing("ma:7,13"))


def test_savgol_is_the_toolbox_s():
    """MuSe-Toolbox: scipy's savgol_filter(rows, window, 3)."""
    from scipy.signal import savgol_filter

    values = np.random.default_rng(0).normal(size=(60, 2))
    expected = savgol_filter(values, 15, 3, axis=0)
    np.testing.assert_allclose(smooth(values, parse_smoothing("savgol:15")), expected, atol=1e-12)


@pytest.mark.parametrize("rows", range(9))
def test_short_trials(rows):
    values = np.random.default_rng(rows).normal(size=(rows, 2))
    smoothed = smooth(values, parse_smoothing("savgol:15"))
    assert smoothed.shape == values.shape
    assert (rows < 5) == np.array_equal(smoothed, values)
    mean = smooth(values, parse_smoothing("ma:101"))
    if rows:
        np.testing.assert_allclose(mean, np.broadcast_to(values.mean(axis=0), values.shape), atol=1e-12)


@given(
    values=arrays(np.float64, st.tuples(st.integers(0, 60), st.just(2)), elements=st.floats(-1, 1)),
    smoothing=st.sampled_from(FILTERS),
)
def test_length_stays_and_averages_stay_inside(values, smoothing):
    smoothed = smooth(values, smoothing)
    assert smoothed.shape == values.shape
    if smoothing.kind == "ma" and len(values):
        assert (smoothed >= values.min(axis=0) - 1e-12).all()
        assert (smoothed <= values.max(axis=0) + 1e-12).all()


@given(
    value=st.floats(-1, 1, width=32), rows=st.integers(1, 400), smoothing=st.sampled_from(FILTERS), single=st.booleans()
)
def test_constants_stay(value, rows, smoothing, single):
    values = np.full((rows, 2), value, np.float32 if single else np.float64)
    smoothed = smooth(values, smoothing)
    assert smoothed.dtype == values.dtype
    np.testing.assert_allclose(smoothed, values, rtol=0, atol=1e-6 if single else 1e-12)
    if smoothing.kind == "ma":
        assert np.array_equal(smoothed, values)


@given(
    slope=st.floats(-0.1, 0.1),
    cubic=st.floats(-1e-5, 1e-5),
    rows=st.integers(5, 120),
    window=st.sampled_from([5, 7, 15, 31]),
)
def test_savgol_keeps_lines_and_cubics(slope, cubic, rows, window):
    at = np.arange(rows) - rows / 2
    values = (slope * at + cubic * at**3)[:, None]
    np.testing.assert_allclose(smooth(values, Smoothing("savgol", (window,))), values, atol=1e-8)


def test_moving_average_keeps_the_inside_of_a_line():
    values = np.linspace(-1, 1, 50)[:, None]
    np.testing.assert_allclose(smooth(values, parse_smoothing("ma:7"))[3:-3], values[3:-3], atol=1e-12)


def test_input_is_left_alone():
    values = np.random.default_rng(0).normal(size=(40, 2))
    before = values.copy()
    for smoothing in FILTERS:
        smooth(values, smoothing)
    assert np.array_equal(values, before)
    assert smooth(values, NONE) is values
