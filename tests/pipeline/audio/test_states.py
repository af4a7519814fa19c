"""States of overlapping windows are those of one grid, and rows are where a loop over all states puts them."""

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avfuse.pipeline.audio.states import StateGrid, is_silence, level, state_rows

RATE_HZ = 16_000
WAV2VEC = StateGrid(RATE_HZ, 20.0, 5.0, 0.02, 0.0125)
WHISPER = StateGrid(RATE_HZ, 20.0, 5.0, 0.02, 0.0)
# A model at another rate whose hop is no whole number of samples.
ODD = StateGrid(22_050, 8.0, 1.0, 1 / 30, 0.05, 0.1)
GRIDS = {"wav2vec2": WAV2VEC, "whisper": WHISPER, "odd": ODD}


def count_states(grid, num_samples) -> int:
    """As many as the encoders have: with their field inside, or with their centre where that is at the start."""
    if grid.first_s == 0:
        return math.ceil(num_samples / (grid.hop_s * grid.rate_hz) - 1e-9)
    return max(0, math.floor((num_samples / grid.rate_hz - 2 * grid.first_s) / grid.hop_s + 1e-9) + 1)


def kept_numbers(grid, num_samples) -> np.ndarray:
    """The numbers on the grid of all states that are kept, in order."""
    kept = []
    for window in grid.windows(num_samples):
        numbers = window.origin + np.arange(count_states(grid, window.stop - window.start))
        kept.append(grid.kept(window, numbers[:, None].astype(np.float32), num_samples)[:, 0])
    return np.concatenate([np.zeros(0), *kept])


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@given(st.floats(0, 200))
def test_kept_stretches_abut_exactly_and_are_those_of_the_whole_sound(grid, length_s):
    num_samples = round(length_s * grid.rate_hz)
    if num_samples < round(grid.field_s * grid.rate_hz):
        assert list(grid.windows(num_samples)) == []
        return
    windows = list(grid.windows(num_samples))
    np.testing.assert_array_equal(kept_numbers(grid, num_samples), np.arange(count_states(grid, num_samples)))
    assert {each.stop - each.start for each in windows[:-1]} <= {
        round((grid.window_s + 2 * grid.context_s) * grid.rate_hz)
    }
    assert windows[-1].stop == num_samples
    for each in windows:
        # They begin on the grid (to half a sample), with their context before what they give and after it.
        assert abs(each.start - each.origin * grid.hop_s * grid.rate_hz) <= 0.5
        assert each.origin == 0 or (each.first - each.origin) * grid.hop_s >= grid.context_s - 1e-6
        if each.end is not None:
            assert each.stop / grid.rate_hz - each.end * grid.hop_s >= grid.context_s - grid.hop_s - 1e-6


def test_the_windows_of_a_minute_are_thirty_seconds_and_their_cores_twenty():
    windows = [(each.start, each.stop, each.first, each.end) for each in WAV2VEC.windows(61 * RATE_HZ)]
    assert windows == [
        (0, 480_000, 0, 1250),
        (320_000, 800_000, 1250, 2250),
        (640_000, 976_000, 2250, None),
    ]
    assert all(start % 320 == 0 for start, *_ in windows)
    assert len(list(WAV2VEC.windows(30 * RATE_HZ))) == 1


def test_states_past_the_sound_are_dropped_and_too_few_are_refused():
    (window,) = WHISPER.windows(4 * RATE_HZ + 100)
    assert len(WHISPER.kept(window, np.zeros((1500, 2), np.float32), 4 * RATE_HZ + 100)) == 201
    first, _ = WHISPER.windows(40 * RATE_HZ)
    with pytest.raises(ValueError, match="gave 1249 states for 30 s of sound, and with a hop"):
        WHISPER.kept(first, np.zeros((1249, 2), np.float32), 40 * RATE_HZ)


@pytest.mark.parametrize(
    ("times", "named"),
    [
        ((0.01, 15.0, 0.02, 0.0), "has no state"),
        ((30.0, 5.0, 0.0, 0.0), "hop, field and rate above 0"),
        ((30.0, 5.0, 1e-5, 0.0), "less than a sample"),
        ((math.nan, 5.0, 0.02, 0.0), "finite"),
        ((30.0, -5.0, 0.02, 0.0), "finite"),
    ],
)
def test_times_that_cannot_be_are_refused(times, named):
    with pytest.raises(ValueError, match=named):
        StateGrid(RATE_HZ, *times)


def looked_up(grid, time_s, count) -> tuple[list[Any], np.ndarray]:
    """Each row's states, looked for among all; and the middles of the rows."""
    centres = grid.first_s + grid.hop_s * np.arange(count)
    steps = np.diff(time_s)
    ends = [*time_s[1:], time_s[-1] + (steps[-1] if len(steps) else 1 / 30)]
    rows = []
    for begin_s, end_s in zip(time_s, ends, strict=True):
        within = np.flatnonzero((centres >= begin_s - 1e-6) & (centres < end_s - 1e-6))
        rows.append(list(within) if len(within) else [int(np.abs(centres - (begin_s + end_s) / 2).round(9).argmin())])
    return rows, (time_s + np.array(ends)) / 2


CLOCKS = {
    "25": np.arange(100) / 25,
    "29.97": np.arange(119) * 1001 / 30_000,
    "60, late": 0.3 + np.arange(200) / 60,
    "120": np.arange(400) / 120,
    "5, a pause": np.array([0.0, 0.2, 0.4, 2.4, 2.6]),
    "vfr": np.cumsum(np.random.default_rng(1).uniform(0.005, 0.12, 60)),
    "one frame": np.array([0.7]),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("clock", CLOCKS)
def test_rows_are_the_means_of_the_states_centred_in_their_frames(grid, clock):
    time_s = CLOCKS[clock]
    states = np.random.default_rng(0).standard_normal((round(6 / grid.hop_s), 3)).astype(np.float32)
    first, stop = grid.of_rows(time_s)
    made = np.concatenate(list(state_rows([states], first, stop)))
    rows, _ = looked_up(grid, time_s, len(states))
    np.testing.assert_allclose(made, [states[each].astype(float).mean(axis=0) for each in rows], atol=1e-6)
    assert made.dtype == np.float32
    assert (np.diff(first) >= 0).all()
    assert (np.diff(stop) >= 0).all()


@given(st.lists(st.integers(0, 40), max_size=8), st.integers(1, 120))
def test_how_states_arrive_does_not_change_a_row(sizes, rate):
    states = np.random.default_rng(2).standard_normal((150, 2)).astype(np.float32)
    first, stop = WAV2VEC.of_rows(np.arange(0, 3.2, 1 / rate))
    edges = np.cumsum([0, *sizes]).clip(max=150)
    pieces = [states[begin:end] for begin, end in zip(edges, [*edges[1:], None], strict=True)]
    whole = np.concatenate(list(state_rows([states], first, stop)))
    np.testing.assert_allclose(np.concatenate(list(state_rows(pieces, first, stop))), whole, atol=1e-6)
    # 150 states end at 3.0125 s: rows that have none any more are not delivered, all others are.
    assert len(whole) == np.count_nonzero(first < 150)


def test_no_state_gives_no_row():
    first, stop = WAV2VEC.of_rows(np.arange(5) / 25)
    assert list(state_rows([], first, stop)) == []
    assert list(state_rows([np.zeros((0, 4), np.float32)], first, stop)) == []
    empty = WAV2VEC.of_rows(np.zeros(0))
    assert [len(each) for each in empty] == [0, 0]
    assert list(state_rows([np.ones((9, 4), np.float32)], *empty)) == []


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("clock", CLOCKS)
def test_rows_are_valid_where_all_their_states_are_made_from_real_sound(grid, clock):
    time_s = CLOCKS[clock]
    spans = [(0.5, 1.7), (2.0, 3.3)]
    count = count_states(grid, round(3.3 * grid.rate_hz))
    rows, middles = looked_up(grid, time_s, count + 1000)  # as if the sound had no end
    steps = np.diff(time_s, append=2 * time_s[-1] - time_s[-2] if len(time_s) > 1 else time_s[-1] + 1 / 30)
    expected = []
    for states, middle, begin_s, step_s in zip(rows, middles, time_s, steps, strict=True):
        centres = grid.first_s + grid.hop_s * np.array([each for each in states if each < count])
        if not len(centres):
            expected.append(False)
            continue
        begins = np.maximum(centres - grid.field_s / 2, 0)
        real = all(
            any(start - 5e-5 <= each and each + grid.field_s <= stop + 5e-5 for start, stop in spans) for each in begins
        )
        # The nearest one counts where it is as near as a state of an endless sound would be.
        within = (centres[0] >= begin_s - 1e-6) & (centres[0] < begin_s + step_s - 1e-6)
        near = within or abs(centres[0] - middle) <= max(grid.hop_s, grid.field_s) / 2 + 1e-6
        expected.append(real and near)
    np.testing.assert_array_equal(grid.valid(time_s, count, spans), expected)
    assert not grid.valid(time_s, count, []).any()
    assert not grid.valid(time_s, 0, spans).any()


def test_every_row_of_whole_sound_is_valid_from_the_first_on():
    for grid in (WAV2VEC, WHISPER):
        for rate in (24, 25, 30, 60, 240):
            assert grid.valid(np.arange(0, 3, 1 / rate), 200, [(0.0, 4.0)]).all(), (grid, rate)


def test_the_level_is_that_of_the_real_samples_alone():
    rng = np.random.default_rng(3)
    samples = np.zeros(50_000, np.float32)
    real = rng.normal(0.01, 0.2, 30_000).astype(np.float32)
    samples[10_000:40_000] = real
    mean, deviation = level(np.split(samples, [7, 12_345]), [(10_000 / RATE_HZ, 40_000 / RATE_HZ)], RATE_HZ)
    assert mean == pytest.approx(real.mean(dtype=np.float64), rel=1e-6)
    assert deviation == pytest.approx(math.sqrt(real.var(dtype=np.float64) + 1e-7), rel=1e-6)
    assert not is_silence(deviation)


def test_digital_silence_is_divided_by_something_and_known_for_what_it_is():
    mean, deviation = level([np.zeros(1000, np.float32)], [(0.0, 1000 / RATE_HZ)], RATE_HZ)
    assert (mean, deviation) == (0.0, math.sqrt(1e-7))
    assert is_silence(deviation)
    assert is_silence(level([], [], RATE_HZ)[1])
    faint = np.random.default_rng(0).normal(0, 1e-3, 16_000).astype(np.float32)
    assert not is_silence(level([faint], [(0.0, 1.0)], RATE_HZ)[1])


def test_an_hour_of_clicks_does_not_drift():
    """The number of each state is its place, so that its time is known to the sample wherever a window begins."""
    for grid in GRIDS.values():
        num_samples = 3600 * grid.rate_hz
        clicks_s = np.arange(7.0, 3590, 61.3)
        numbers = kept_numbers(grid, num_samples)
        assert len(numbers) == count_states(grid, num_samples)
        for window in grid.windows(num_samples):
            nominal_s = grid.centres_s(window.origin, window.origin + 1)[0]
            assert abs(window.start / grid.rate_hz + grid.first_s - nominal_s) <= 0.5 / grid.rate_hz
        nearest = np.abs(grid.centres_s(0, len(numbers))[:, None] - clicks_s).min(axis=0)
        assert nearest.max() <= grid.hop_s / 2 + 1e-9


def test_memory_does_not_grow_with_the_length_of_a_frame():
    """A picture that stands still for an hour is one row: nothing of its states is kept but their sum."""
    first, stop = WAV2VEC.of_rows(np.array([0.0, 3600.0]))
    pieces = (np.ones((1000, 64), np.float32) for _ in range(190))
    tracemalloc.start()
    rows = list(state_rows(pieces, first, stop))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(np.concatenate(rows), np.ones((2, 64)))
    assert peak < 3e6
