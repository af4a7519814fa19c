from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avfuse.pipeline.audio.mfcc import mfcc_start_frames, mfcc_valid, mfccs

ALIGNS = ("start", "center", "end")


def noise(count: int) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(count) * 0.1).astype(np.float32)


def rows(blocks, time_s, align="start", batch_rows=32) -> np.ndarray:
    return np.concatenate([np.zeros((0, 39), np.float32), *mfccs(blocks, time_s, align, batch_rows)])


def test_windows_are_the_nearest_of_the_grid():
    time_s = np.array([0.0, 0.0049, 0.0051, 1.0])
    np.testing.assert_array_equal(mfcc_start_frames(time_s, "start"), [0, 0, 1, 100])
    np.testing.assert_array_equal(mfcc_start_frames(time_s, "center"), [-1, -1, -1, 99])
    np.testing.assert_array_equal(mfcc_start_frames(time_s, "end"), [-2, -2, -2, 98])
    with pytest.raises(ValueError, match="audio alignment"):
        mfcc_start_frames(time_s, "middle")  # type: ignore[arg-type]


@given(
    st.lists(st.integers(0, 20_000), max_size=5), st.sampled_from(ALIGNS), st.integers(1, 50), st.integers(1, 40_000)
)
def test_blocks_and_batches_do_not_change_a_bit(sizes, align, batch_rows, count):
    samples, time_s = noise(count), np.arange(0, 3, 1 / 29.97)
    edges = [0, *np.cumsum(sizes), None]
    blocks = [samples[begin:end] for begin, end in pairwise(edges)]
    np.testing.assert_array_equal(rows(blocks, time_s, align, batch_rows), rows([samples], time_s, align))


def test_a_row_knows_when_the_sound_begins():
    samples = np.concatenate([np.zeros(16_000, np.float32), noise(16_000)])
    loudness = {align: rows([samples], np.arange(0, 2, 0.01), align)[:, 0] for align in ALIGNS}
    begins = {align: int(np.flatnonzero(loud > loud[:50].max() + 20)[0]) for align, loud in loudness.items()}
    assert 98 <= begins["start"] <= 99
    assert begins["end"] - begins["start"] == 2
    assert begins["start"] <= begins["center"] <= begins["end"]


def test_a_steady_sound_has_no_slope():
    made = rows([np.sin(np.arange(16_000) * (2 * np.pi / 16)).astype(np.float32)], np.arange(0, 0.9, 0.04))
    assert np.abs(made[:, 13:]).max() < 1e-3
    assert np.abs(made[:, 0]).min() > 1


def test_rows_beyond_the_tail_are_not_delivered():
    assert len(rows([noise(16_000)], np.arange(0, 5, 0.01))) == (32_000 - 400) // 160 + 1
    assert len(rows([], np.arange(3.0))) == 0
    assert len(rows([noise(1)], np.zeros(1))) == 1


def test_valid_rows_read_real_sound_only():
    time_s = np.arange(0, 3, 0.01)
    valid = mfcc_valid(time_s, "start", [(0.0, 1.0), (1.5, 3.0)])
    # Four neighbours a side for ΔΔ; before the first window nothing is read.
    expected = (time_s + 0.065 < 1.0001) | ((time_s - 0.04 > 1.4999) & (time_s + 0.065 < 3.0001))
    np.testing.assert_array_equal(valid, expected)
    assert not mfcc_valid(time_s[:2], "end", [(0.0, 1.0)]).any()
