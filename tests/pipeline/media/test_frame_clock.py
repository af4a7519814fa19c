"""The picture's clock: good times stay, and what is missing, falls or leaps is repaired alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avfuse.pipeline.media.frame_clock import FrameClock


def times(*given_s: float | None, origin_s=0.0, start_s=0.0) -> list[float]:
    return clocked(FrameClock(origin_s, start_s, step_s=0.04), given_s)


def clocked(clock: FrameClock, given_s) -> list[float]:
    """All times, each taken out as soon as it is settled."""
    found = []
    for at_s in given_s:
        clock.add(at_s, tick_s=0.001)
        found += clock.settled(ended=False)
    return found + clock.settled(ended=True)


def test_good_times_stay_as_they_are():
    assert times(0.5, 0.54, 0.9, origin_s=0.5) == pytest.approx([0.0, 0.04, 0.4])


def test_missing_times_come_a_frame_step_later():
    assert times(None, None, 1.58, None, origin_s=1, start_s=1.5) == pytest.approx([0.5, 0.54, 0.58, 0.62])
    assert times(None, None, origin_s=0, start_s=0) == pytest.approx([0.0, 0.04])


def test_times_that_do_not_rise_come_between_their_neighbours():
    assert times(0.0, 0.04, 0.04, 0.03, 0.12) == pytest.approx([0.0, 0.04, 0.04 + 0.08 / 3, 0.08 + 0.04 / 3, 0.12])


@pytest.mark.parametrize("ahead_s", [0.1, 0.2, 3.0, 20.0, 7200.0, 1e6])
@pytest.mark.parametrize("bad", [(0,), (49,), (10, 60), (50, 51), (98,), (99,)])
def test_a_frame_stamped_ahead_is_repaired_and_no_other(bad, ahead_s):
    true_s = np.arange(100) / 25
    given_s = [at_s + ahead_s * (row in bad) for row, at_s in enumerate(true_s)]
    found = np.array(times(*given_s))
    others = ~np.isin(np.arange(100), bad)
    np.testing.assert_array_equal(found[others], true_s[others])
    if bad != (99,):  # of the last frame nobody can say
        np.testing.assert_allclose(found, true_s, atol=0.0401)
    assert (np.diff(found) > 0).all()


@pytest.mark.parametrize("rate", [1, 5, 30])
def test_a_slow_video_with_a_frame_ahead(rate):
    given_s = [at + 3.0 * (at == 20) for at in np.arange(40) / rate * 1.0]
    found = np.array(clocked(FrameClock(0.0, 0.0, 1 / rate), given_s))
    np.testing.assert_allclose(found, np.arange(40) / rate, atol=1 / rate)


def test_a_pause_is_kept():
    given_s = [0.0, 0.04, 0.08, 5.0, 5.04, 5.08, 5.12, 9.0, 9.04]
    assert times(*given_s) == given_s


@pytest.mark.parametrize(("at", "missing"), [(50, 0.02), (100, 0.02)])
def test_of_two_frames_at_one_time_the_second_moves(at, missing):
    given_s = np.arange(200) / 25
    given_s[at:] -= 0.04  # two on one tick, then the old pace
    found = np.array(times(*given_s))
    assert found[at] == pytest.approx(given_s[at] + missing)
    np.testing.assert_array_equal(np.delete(found, at), np.delete(given_s, at))


def test_a_new_clock_goes_on_where_the_old_one_ended():
    assert times(8.0, 8.04, 1.0, 1.05, 1.08, origin_s=0, start_s=8.0) == pytest.approx([8.0, 8.04, 8.08, 8.13, 8.16])


@given(st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_times_rise_strictly_whatever_the_file_says(given_s):
    assert (np.diff(times(*given_s)) > 0).all()


def test_a_time_years_ahead_is_repaired_and_left_behind():
    """One damaged time of many: the frames after it keep theirs."""
    year_s = 365 * 86_400.0
    clock = FrameClock(0.0, 0.0, step_s=0.04)
    found = clocked(clock, (0.0, 0.04, 0.08 + year_s, 0.12, 0.16))
    np.testing.assert_allclose(found, np.arange(5) / 25, atol=1e-6)
    assert clock.num_repaired == 1


@pytest.mark.parametrize("first_s", [-1e9, -1e6, 1e6, 1e9])
def test_a_first_time_far_from_the_stated_start_is_the_start(first_s):
    clock = FrameClock(2.0, 3.0, step_s=0.04)
    found = clocked(clock, [first_s + frame / 25 for frame in range(3)])
    np.testing.assert_allclose(found, 1.0 + np.arange(3) / 25, atol=1e-6)


@pytest.mark.parametrize(("fall_s", "anew"), [(0.45, False), (0.55, True)])
def test_a_clock_that_falls_by_half_a_second_is_new(fall_s, anew):
    """Packets of pictures out of order fall by less, recordings of a second by more."""
    found = times(*(at / 25 - fall_s * (at >= 50) for at in range(100)))
    assert found[-1] == pytest.approx(3.96 if anew else 3.96 - fall_s)


@pytest.mark.parametrize(("pause_h", "kept"), [(11, True), (13, False)])
def test_half_a_day_is_the_longest_pause(pause_h, kept):
    """A camera left on over a night pauses for less; a time further ahead is damaged."""
    pause_s = pause_h * 3600.0
    given_s = [0.0, 0.04, 0.08, *(pause_s + np.arange(1, 8) / 25)]
    found = times(*given_s)
    assert found == pytest.approx(given_s if kept else np.arange(10) / 25, abs=1e-6)


def test_five_frames_after_one_say_whether_it_is_out_of_line():
    """So many rows are held back, a fifth of a second, and no more."""
    clock = FrameClock(0.0, 0.0, step_s=0.04)
    settled = []
    for at_s in (0.0, 0.04, 3.08, 0.12, 0.16, 0.2, 0.24, 0.28, 0.32):
        clock.add(at_s, tick_s=0.001)
        settled.append(len(clock.settled(ended=False)))
    assert settled == [0, 0, 0, 0, 0, 2, 0, 6, 1]  # the first has no frame before it, and waits too


@pytest.mark.parametrize(("moved", "repaired"), [(3, 3), (4, 2)])
def test_a_new_clock_is_what_four_of_six_frames_say(moved, repaired):
    """Three damaged times in a row are repaired one by one; four are a clock that starts anew, and then another one."""
    given_s = np.arange(60) / 25
    given_s[20 : 20 + moved] += 1e6
    clock = FrameClock(0.0, 0.0, step_s=0.04)
    np.testing.assert_allclose(clocked(clock, given_s), np.arange(60) / 25, atol=1e-6)
    assert clock.num_repaired == repaired
