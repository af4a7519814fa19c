import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avfuse.features_store.interchange.resampling import at_times, row_a_frame

TIMES = st.lists(st.floats(0.01, 3.0), min_size=1, max_size=25).map(np.cumsum)


def rows_of(plan, source):
    """What a plan makes of rows [N, D], pair by pair."""
    made = np.zeros((len(plan.valid), source.shape[1]))
    for row, at, weight in zip(plan.row, plan.source, plan.weight, strict=True):
        made[row] += weight * source[at]
    return made


def good(number, *bad):
    flags = np.ones(number, bool)
    flags[list(bad)] = False
    return flags


def test_a_row_a_frame_is_cut_or_the_last_one_repeated():
    exact, longer, shorter = (row_a_frame(good(n), 4) for n in (4, 6, 2))
    assert exact.source.tolist() == longer.source.tolist() == [0, 1, 2, 3]
    assert exact.valid.all()
    assert longer.valid.all()
    assert (shorter.source.tolist(), shorter.valid.tolist()) == ([0, 1, 1, 1], [True, True, False, False])


def test_a_bad_row_is_not_valid_and_holds_the_one_before():
    plan = row_a_frame(good(6, 0, 3, 4), 6)
    assert plan.source.tolist() == [1, 1, 2, 2, 2, 5]
    assert plan.valid.tolist() == [False, True, True, False, False, True]
    plan = at_times(np.arange(6.0), np.array([0.0, 1.5, 2.0, 2.5, 3.0, 4.5, 5.0]), "linear", good(6, 3, 4))
    assert rows_of(plan, np.arange(6.0)[:, None])[:, 0].tolist() == [0, 1.5, 2, 2, 2, 2, 5]
    assert plan.valid.tolist() == [True, True, True, False, False, False, True]


def test_by_hand():
    source_s = np.array([0.0, 1.0, 2.0, 7.0, 8.0])  # median step 1 s; a gap of 5 s
    time_s = np.array([-0.6, -0.4, 0.25, 0.5, 1.0, 3.0, 4.5, 4.6, 7.0, 8.5, 8.6])
    rows = np.array([0.0, 10, 20, 70, 80])[:, None]
    linear, nearest, mean = (at_times(source_s, time_s, how, good(5)) for how in ("linear", "nearest", "mean"))
    valid = [False, True, True, True, True, False, False, False, True, True, False]
    assert linear.valid.tolist() == nearest.valid.tolist() == valid
    assert rows_of(linear, rows)[:, 0].tolist() == [0, 0, 2.5, 5, 10, 20, 20, 70, 70, 80, 80]
    assert rows_of(nearest, rows)[:, 0].tolist() == [0, 0, 0, 0, 10, 20, 20, 70, 70, 80, 80]
    # [-0.4, 0.25) holds the row at 0, [1, 3) those at 1 and 2, [4.6, 7) none, [7, 8.5) those at 7 and 8
    assert rows_of(mean, rows)[:, 0].tolist() == [0, 0, 0, 0, 15, 20, 20, 70, 75, 80, 80]


@given(TIMES, TIMES, st.floats(-2, 2), st.data())
def test_rows_are_those_of_plain_words(source_s, time_s, shift_s, data):
    """Each method against its definition, written as a loop."""
    time_s = time_s + shift_s
    bad = data.draw(st.sets(st.integers(0, len(source_s) - 1), max_size=len(source_s) - 1))
    flags, rows = good(len(source_s), *bad), np.arange(len(source_s), dtype=float)[:, None] ** 1.5
    step = float(np.median(np.diff(source_s))) if len(source_s) > 1 else 0.0
    ends = np.append(time_s[1:], time_s[-1] + (np.median(np.diff(time_s)) if len(time_s) > 1 else step))
    for how in ("linear", "nearest", "mean"):
        plan = at_times(source_s, time_s, how, flags)
        made = rows_of(plan, rows)[:, 0]
        assert (np.diff(plan.row) >= 0).all()
        assert np.allclose(np.bincount(plan.row, plan.weight, len(time_s)), 1)
        assert flags[plan.source].all()
        for i, t in enumerate(time_s):
            near = int(np.argmin(np.abs(source_s - t)))  # ties to the earlier
            after = int(np.searchsorted(source_s, t))
            left, right = max(after - 1, 0), min(after, len(source_s) - 1)
            within = np.flatnonzero((source_s >= t) & (source_s < ends[i]))
            outside = t < source_s[0] - step / 2 - 1e-6 or t > source_s[-1] + step / 2 + 1e-6
            gap = abs(source_s[near] - t) > 1e-6 and source_s[right] - source_s[left] > 3 * step + 1e-6
            if how == "mean" and len(within):
                used, expected, valid = within.tolist(), rows[within, 0].mean(), True
            elif how != "linear" or outside or gap or not source_s[0] < t < source_s[-1]:
                used, expected, valid = [near], rows[near, 0], not (outside or gap)
            else:
                used = [at for at in (left, right) if source_s[at] == t] or [left, right]
                expected, valid = np.interp(t, source_s, rows[:, 0]), True
            if flags[used].all():
                assert made[i] == pytest.approx(expected, abs=1e-9)
                assert plan.valid[i] == valid
            else:
                assert not plan.valid[i]
                held = [at for at in range(left + 1) if flags[at]] or [int(np.argmax(flags))]
                assert made[i] == rows[held[-1], 0]
