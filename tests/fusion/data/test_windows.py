import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avfuse.features_store.clock import window_starts
from avfuse.fusion.data.windows import plan_windows, row_index

SIZES = st.integers(1, 40).flatmap(lambda window: st.tuples(st.just(window), st.integers(1, window)))


@pytest.mark.parametrize(
    ("rows", "starts"),
    [
        (0, []),
        (1, [0]),
        (120, [0]),
        (299, [0]),
        (300, [0]),
        (301, [0, 1]),
        (499, [0, 199]),
        (500, [0, 200]),
        (501, [0, 200, 201]),
        (650, [0, 200, 350]),
        (700, [0, 200, 400]),
        (1000, [0, 200, 400, 600, 700]),
    ],
)
def test_starts_by_hand(rows, starts):
    assert window_starts(rows, 300, 200).tolist() == starts


@given(st.integers(1, 10_000))
def test_number_of_windows(rows):
    assert len(window_starts(rows, 300, 200)) == (1 if rows <= 300 else math.ceil((rows - 300) / 200) + 1)


@given(st.integers(1, 400), SIZES)
def test_windows_cover_every_row_and_none_beyond(rows, sizes):
    window, hop = sizes
    starts = window_starts(rows, window, hop)
    assert len(starts) == (1 if rows <= window else math.ceil((rows - window) / hop) + 1)
    covered = np.zeros(rows, int)
    for start in starts:
        assert 0 <= start <= max(rows - window, 0)
        covered[start : start + window] += 1
    assert covered.min() >= 1
    assert starts[-1] + window == rows or rows <= window
    assert np.array_equal(starts[:-1], np.arange(len(starts) - 1) * hop)
    assert starts[-1] <= (len(starts) - 1) * hop


@given(st.lists(st.integers(0, 60), max_size=6), SIZES)
def test_windows_of_several_trials_stay_in_their_own(counts, sizes):
    window, hop = sizes
    ends = np.cumsum(counts, dtype=int)
    spans = [(int(end) - count, count) for end, count in zip(ends, counts, strict=True)]
    windows = plan_windows(spans, window, hop)
    expected = [(first + s, min(rows, window)) for first, rows in spans for s in window_starts(rows, window, hop)]
    assert list(zip(windows.start.tolist(), windows.length.tolist(), strict=True)) == expected
    total = sum(counts)
    index = row_index(windows, window, total)
    assert index.shape == (len(windows), window)
    assert sorted(set(index[index < total].tolist())) == list(range(total))
    for (start, length), rows in zip(expected, index.tolist(), strict=True):
        assert rows == [*range(start, start + length), *[total] * (window - length)]


def test_a_trial_of_no_rows_has_no_window():
    assert len(plan_windows([(0, 0)], 300, 200)) == len(plan_windows([], 300, 200)) == 0
