import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avfuse.features_store.clock import NO_ROW, fill_missing, fit_rows, fit_time, patch_start_frames

TEN_HOURS_S = 36_000.0
times = st.lists(st.floats(0, TEN_HOURS_S), min_size=1, max_size=50)
flags = st.lists(st.booleans(), max_size=40)


@given(times)
def test_patch_is_off_by_5_ms_at_most(values):
    time_s = np.array(values)
    error_s = np.abs(patch_start_frames(time_s, "start") / 100 - time_s)
    assert error_s.max() <= 0.005 + 1e-9


@pytest.mark.parametrize("rate_hz", [24000 / 1001, 25, 30000 / 1001, 30, 50, 60])
def test_error_never_adds_up(rate_hz):
    time_s = np.arange(0, TEN_HOURS_S, 997 / rate_hz)
    assert np.abs(patch_start_frames(time_s, "start") / 100 - time_s).max() <= 0.005 + 1e-9


@given(times)
def test_alignments_are_half_and_whole_patches_apart(values):
    time_s = np.array(values)
    start, center, end = (patch_start_frames(time_s, align) for align in ("start", "center", "end"))
    assert (start - center == 48).all()
    assert (start - end == 96).all()


def test_half_goes_to_even():
    assert patch_start_frames(np.array([0.005, 0.015, 0.025]), "start").tolist() == [0, 2, 2]


def test_unknown_words_are_refused():
    with pytest.raises(ValueError, match="middle"):
        patch_start_frames(np.zeros(1), "middle")  # type: ignore[arg-type]  # is refused
    with pytest.raises(ValueError, match="guess"):
        fill_missing(np.zeros(1, np.bool_), "guess")  # type: ignore[arg-type]  # is refused


@given(st.integers(0, 60), st.integers(0, 60))
def test_fit_rows_trims_or_repeats_the_last(num_rows, length):
    index, real = fit_rows(num_rows, length)
    assert len(index) == len(real) == length
    assert real.sum() == min(num_rows, length)
    assert (index[real] == np.arange(real.sum())).all()
    assert (index[~real] == (num_rows - 1 if num_rows else NO_ROW)).all()


@given(flags)
def test_fill_missing_repeats_the_row_before(found):
    found = np.array(found, np.bool_)
    index = fill_missing(found, "repeat")
    for frame, source in enumerate(index):
        before = found[: frame + 1].sum()
        assert source == (NO_ROW if not found.any() else max(before - 1, 0))


@given(flags)
def test_fill_missing_with_zero_rows(found):
    found = np.array(found, np.bool_)
    index = fill_missing(found, "zero")
    assert ((index == NO_ROW) == ~found).all()
    assert index[found].tolist() == list(range(found.sum()))


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=30), st.integers(0, 60))
def test_fit_time_keeps_rising(steps, length):
    time_s = np.cumsum(steps)
    fitted = fit_time(time_s, length)
    assert len(fitted) == length
    assert (np.diff(fitted) > 0).all()
    kept = min(length, len(time_s))
    assert (fitted[:kept] == time_s[:kept]).all()


def test_times_past_the_end_go_on_at_the_mean_step():
    np.testing.assert_allclose(fit_time(np.array([0, 0.04, 0.08]), 5), [0, 0.04, 0.08, 0.12, 0.16], rtol=1e-12)
    np.testing.assert_allclose(fit_time(np.array([0, 0.1]), 3), [0, 0.1, 0.2], rtol=1e-12)
    np.testing.assert_allclose(fit_time(np.array([1.0, 1.1, 1.4]), 5), [1.0, 1.1, 1.4, 1.6, 1.8], rtol=1e-12)


def test_times_after_a_single_frame_go_on_at_30_frames_a_second():
    np.testing.assert_allclose(fit_time(np.array([2.0]), 3), [2, 2 + 1 / 30, 2 + 2 / 30], rtol=1e-12)
