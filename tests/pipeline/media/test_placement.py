"""Where samples lie: late starts, gaps, overlaps, jitter, drift, and clocks that start anew."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avfuse.pipeline.media.placement import LOOK_AHEAD_S, Placement


def run(frames, origin_s=0.0, block=1000, rate_hz=16_000):
    """Place joined samples 1, 2, 3 … of `frames` (time, samples); returns what is on the clock, and the rest."""
    placement = Placement(origin_s, frames[0][0] or 0.0)
    for time_s, count in frames:
        placement.add(time_s, count / rate_hz)
    total = round(sum(count for _, count in frames) * 16_000 / rate_hz)
    joined = np.arange(1, total + 1, dtype=np.float32)
    out: list[np.ndarray] = [
        np.zeros(0),
        *(part for at in range(0, total, block) for part in placement.place(joined[at : at + block])),
    ]
    return np.concatenate(out), placement


def test_sound_that_starts_late_follows_zeros():
    placed, placement = run([(0.244, 1600), (0.344, 1600)])
    assert placement.real_spans() == [(0.244, 0.444)]
    assert not placed[: round(0.244 * 16_000)].any()
    np.testing.assert_array_equal(placed[round(0.244 * 16_000) :], np.arange(1, 3201))


def test_a_gap_is_filled_with_zeros():
    placed, placement = run([(0.0, 1600), (0.1, 1600), (1.2, 1600), (1.3, 1600)])
    assert placement.real_spans() == [(0.0, 0.2), (1.2, 1.4)]
    np.testing.assert_array_equal(placed[19_200:], np.arange(3201, 6401))
    assert placement.num_moves == 1


def test_an_overlap_is_dropped():
    placed, placement = run([(0.0, 1600), (0.1, 1600), (0.15, 1600), (0.25, 1600)])
    assert placement.real_spans() == [(0.0, 0.35)]
    np.testing.assert_array_equal(placed[3200:], np.arange(3200 + 800 + 1, 6401))


def test_rounded_times_move_nothing():
    frames = [(round(n * 1024 / 44_100, 3), 1024) for n in range(100)]
    placed, placement = run(frames, rate_hz=44_100)
    assert placement.num_moves == 0
    np.testing.assert_array_equal(placed, np.arange(1, len(placed) + 1))


def test_one_frame_alone_cannot_move_the_rest():
    """Readers of Ogg guess the times of packets inside a page."""
    placed, placement = run([(0.0, 1600), (0.1, 1600), (0.21, 1600), (0.3, 1600)])
    assert placement.num_moves == 0
    np.testing.assert_array_equal(placed, np.arange(1, 6401))


def test_a_slow_clock_is_followed():
    """100 ppm: after ten minutes the sound is 60 ms off when it is only counted, at most 5 ms when it is followed."""
    frames = [(n * 0.1 * 1.0001, 1600) for n in range(6000)]
    placed, placement = run(frames, block=160_000)
    last = int(np.flatnonzero(placed == 5999 * 1600 + 1)[0])
    assert last / 16_000 == pytest.approx(frames[-1][0], abs=0.0052)
    assert placement.num_moves == 0
    assert placement.drift_s == pytest.approx(0.057, abs=0.004)
    assert len(placement.real_spans()) == 1


def test_a_new_audio_clock_goes_on():
    placed, placement = run([(5.0, 1600), (5.1, 1600), (0.0, 1600), (0.1, 1600)], origin_s=5.0)
    assert placement.real_spans() == [(0.0, 0.4)]
    np.testing.assert_array_equal(placed, np.arange(1, 6401))


def test_sound_before_time_zero_is_dropped():
    placed, placement = run([(-0.05, 1600), (0.05, 1600)])
    np.testing.assert_array_equal(placed, np.arange(801, 3201))
    assert placement.real_spans() == [(0.0, 0.15)]


@given(
    st.lists(st.tuples(st.none() | st.floats(-3, 20), st.integers(1, 9000)), min_size=1, max_size=20),
    st.integers(1, 7000),
)
def test_placed_sound_is_whole_whatever_the_file_says(frames, block):
    placed, placement = run(frames, block=block)
    again, _ = run(frames, block=10**9)
    np.testing.assert_array_equal(placed, again)
    assert len(placed) == placement.position
    real = np.zeros(len(placed), bool)
    for start_s, stop_s in placement.real_spans():
        assert 0 <= start_s < stop_s
        assert not real[round(start_s * 16_000) : round(stop_s * 16_000)].any()
        real[round(start_s * 16_000) : round(stop_s * 16_000)] = True
    assert (placed[~real] == 0).all()
    assert (placed[real] > 0).all()
    steps = np.diff(placed[real])
    assert (steps >= 0).all()
    assert (steps == 0).sum() <= round(
        placement.drift_s * 16_000
    )  # a followed drift, and nothing else, doubles samples


GAP_S = st.one_of(
    st.just(0.0), st.floats(0.0051, 0.5)
)  # what is less cannot be distinguished from jitter, and is followed evenly


@given(st.lists(st.tuples(GAP_S, st.integers(2000, 9000)), min_size=2, max_size=10), st.integers(1, 9000))
def test_frames_of_true_times_stand_at_them(gaps, block):
    """Each gap before two frames that agree on it: every sample is within 5 ms and half a sample of its place."""
    frames, at_s = [], 0.0
    for gap_s, count in gaps:
        at_s += gap_s
        frames += [(at_s, count), (at_s + count / 16_000, count)]
        at_s += 2 * count / 16_000
    placed, _ = run(frames, block=block)
    joined = 0
    for time_s, count in frames:
        (place,) = np.flatnonzero(placed == joined + 1)
        assert abs(place / 16_000 - time_s) <= 0.005 + 0.6 / 16_000, frames
        joined += count


@pytest.mark.parametrize("years", [-100, -1, 1, 100])
def test_sound_that_jumps_by_years_goes_on(years):
    """Neither is it dropped, nor do zeros for years come before it."""
    jump_s = years * 365 * 86_400.0
    placement = Placement(0.0, 0.0)
    for frame in range(6):
        placement.add(frame * 0.1 + (jump_s if frame > 2 else 0.0), 0.1)
    samples = np.ones(9600, np.float32)
    placed = np.concatenate(list(placement.place(samples)))
    assert len(placed) == 9600
    assert placed.all()


def test_more_silence_than_a_day_is_refused():
    """Nights of eleven and a half hours between recordings of 6 s: two are kept, the third is one too many."""

    def length_of(parts):
        placement = Placement(0.0, 0.0)
        for frame in range(parts * 60):
            placement.add(frame // 60 * 11.5 * 3600 + frame % 60 * 0.1, 0.1)
        return sum(len(part) for part in placement.place(np.ones(parts * 96_000, np.float32)))

    assert length_of(3) == 23 * 3600 * 16_000 + 96_000
    with pytest.raises(ValueError, match="more than 24 h of silence"):
        length_of(4)


def test_of_long_frames_one_alone_says_where_it_lies():
    """Nobody can wait for the frame after it: it is half a second of sound by itself."""
    _, placement = run([(0.0, 9600), (2.0, 9600)])
    assert placement.num_moves == 1
    assert placement.real_spans() == [(0.0, 0.6), (2.0, 2.6)]
    _, placement = run([(0.0, 1600), (0.1, 1600), (2.0, 1600)])
    assert placement.num_moves == 0
    for length_s, alone in ((0.51, 1), (0.49, 0)):
        _, placement = run([(0.0, round(length_s * 16_000)), (2.0, 1600)])
        assert placement.num_moves == 0  # it is the frame's own length that counts
        _, placement = run([(0.0, 1600), (2.0, round(length_s * 16_000))])
        assert placement.num_moves == alone


@pytest.mark.parametrize("jitter_s", [0.008, 0.02, 0.06])
def test_jitter_is_not_a_gap(jitter_s):
    rng = np.random.default_rng(0)
    frames = [(n * 0.02 + rng.uniform(0, jitter_s), 320) for n in range(1000)]
    placed, placement = run(frames, block=160_000)
    assert placement.num_moves == 0
    assert len(placement.real_spans()) == 1
    first_s = placement.real_spans()[0][0]
    assert abs(first_s - jitter_s / 2) < 0.012
    assert len(placed) == pytest.approx(320_000 + 16_000 * jitter_s / 2, abs=200)


def test_a_gap_is_found_through_jitter():
    rng = np.random.default_rng(0)
    frames = [(n * 0.02 + 0.3 * (n >= 500) + rng.uniform(0, 0.05), 320) for n in range(1000)]
    _, placement = run(frames, block=160_000)
    spans = placement.real_spans()
    gap_s, after_s = max(zip([end for _, end in spans], [start for start, _ in spans[1:]], strict=False), key=np.ptp)
    assert gap_s == pytest.approx(10.025, abs=0.025)
    assert after_s - gap_s == pytest.approx(0.3, abs=0.025)


@pytest.mark.parametrize("beat_s", [0.34, 0.7])
def test_a_raster_that_beats_is_not_a_gap(beat_s):
    """Frames of 21.3 ms stamped on a raster of 20 ms come back after 0.34 s."""
    frames = [(n * 0.02 - 0.004 + 0.008 * ((n * 0.02 / beat_s) % 1), 320) for n in range(1500)]
    placed, placement = run(frames, block=160_000)
    assert placement.num_moves == 0
    assert len(placed) == pytest.approx(480_000, abs=160)


@pytest.mark.parametrize("drift", [-0.01, -0.003, 0.003, 0.01])
def test_drift_is_followed_without_a_hole(drift):
    frames = [(n * 0.02 * (1 + drift), 320) for n in range(2000)]
    placed, placement = run(frames, block=160_000)
    assert len(placement.real_spans()) == 1
    for n in (500, 1000, 1900):
        place = np.abs(placed - n * 320 - 1).argmin()
        assert place / 16_000 == pytest.approx(frames[n][0], abs=0.006)


@pytest.mark.parametrize(("fall_s", "anew"), [(0.45, False), (0.55, True)])
def test_sound_whose_clock_falls_by_half_a_second_goes_on(fall_s, anew):
    """Jitter (60 ms) falls by less, recordings of a second by more."""
    placed, _ = run([(n * 0.1 - fall_s * (n >= 40), 1600) for n in range(80)])
    assert len(placed) == (128_000 if anew else 128_000 - round(fall_s * 16_000))


def test_times_that_overlap_manifold_are_impossible():
    frames = [(n * 0.00026, 418) for n in range(300)]
    placed, placement = run(frames)
    assert placement.num_impossible == 300
    np.testing.assert_array_equal(placed, np.arange(1, len(placed) + 1))


def test_what_a_resampler_lost_is_counted():
    """It gave 1580 of 1600 samples when it was built anew: what comes next lies where its frame begins."""
    placement = Placement(0.0, 0.0)
    placement.add(0.0, 0.1)
    placement.add(0.1, 0.1, after_samples=1580)
    placed = np.concatenate(list(placement.place(np.arange(1, 3181, dtype=np.float32))))
    assert placed[1600] == 1581
    assert len(placed) == 3200


@pytest.mark.parametrize(("lost", "believed"), [(320, True), (321, False)])
def test_a_filter_holds_back_20_ms_at_most(lost, believed):
    """swresample's holds 16 samples of the slower rate, 16 ms at 1 kHz: more is a line of the log that was lost."""
    placement = Placement(0.0, 0.0)
    placement.add(0.0, 0.1)
    placement.add(0.1, 0.1, after_samples=1600 - lost)
    placed = np.concatenate(list(placement.place(np.arange(1, 3201 - lost, dtype=np.float32))))
    assert placed[1600] == (1601 - lost if believed else 1601)


@pytest.mark.parametrize(("step_s", "moves"), [(0.0045, 0), (0.0055, 1), (-0.0045, 0), (-0.0055, 1)])
def test_a_step_of_more_than_5_ms_is_a_gap_or_an_overlap(step_s, moves):
    """What a patch is off from its row at most, half a log-mel frame: by less nothing is moved."""
    placed, placement = run([(n * 0.1 + step_s * (n >= 40), 1600) for n in range(80)])
    assert placement.num_moves == moves
    assert placement.drift_s == 0
    assert len(placed) == 128_000 + moves * round(step_s * 16_000)


@pytest.mark.parametrize(("away_s", "moves"), [(3.0, 0), (5.0, 2)])
def test_what_comes_back_within_four_seconds_is_jitter(away_s, moves):
    """A recorder that was busy for three seconds stamps late; after five the times stay, and sound is missing there."""
    _, placement = run(busy_for(away_s))
    assert placement.num_moves == moves


def busy_for(away_s):
    return [(n * 0.1 + 0.05 * (10 <= n * 0.1 < 10 + away_s), 1600) for n in range(250)]


@pytest.mark.parametrize("away_s", [3.0, 5.0])
def test_whoever_knows_eight_seconds_more_decides_as_one_who_knows_all(away_s):
    """A sample's place depends on the windows of what lies within its own: 4 s, and 4 s after them."""
    placement = Placement(0.0, 0.0)
    out: list[np.ndarray] = []
    joined = np.arange(1, 400_001, dtype=np.float32)
    known = 0
    for time_s, count in busy_for(away_s):
        placement.add(time_s, count / 16_000)
        before, known = known, max(known, round((placement.joined_s - LOOK_AHEAD_S) * 16_000))
        out += placement.place(joined[before:known])
    out += placement.place(joined[known:])
    np.testing.assert_array_equal(np.concatenate(out), run(busy_for(away_s))[0])


def drifting(drift, seconds=60.0, frame_s=0.1):
    """Sound whose times run away evenly."""
    count = round(frame_s * 16_000)
    return run([(n * frame_s * (1 + drift), count) for n in range(round(seconds / frame_s))], block=800)


def test_a_drift_is_followed_in_steps_of_a_millisecond_spread_over_half_a_second():
    """At first by the 5 ms that could have been jitter. A sample is repeated every 6 ms then, which nobody hears."""
    placed, _ = drifting(100e-6, seconds=100)
    repeated_s = (np.flatnonzero(np.diff(placed) == 0) + 1) / 16_000
    steps = np.split(repeated_s, np.flatnonzero(np.diff(repeated_s) > 1) + 1)
    assert len(steps[0]) == pytest.approx(80, abs=3)
    assert np.ptp(steps[0]) == pytest.approx(0.5, abs=0.02)
    assert len(steps) == 5  # 10 ms run away in 100 s: 5, and then one after the other
    for step in steps[1:]:
        assert len(step) == pytest.approx(17, abs=1)
        assert np.ptp(step) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("drift", "off_s"), [(0.012, 0), (-0.012, 0), (0.02, 0.016), (-0.02, -0.016)])
def test_no_clock_drifts_by_more_than_1_2_percent(drift, off_s):
    """1 % is promised, and a fifth to spare: steeper lines are laid that flat through the middle of the first 4 s."""
    frame_s, begin_s = 0.02, 1.0
    placed, placement = run([(begin_s + n * frame_s * (1 + drift), 320) for n in range(1000)], block=160_000)
    assert placement.num_moves == 0
    assert len(placement.real_spans()) == 1
    assert placement.real_spans()[0][0] - begin_s == pytest.approx(off_s, abs=0.0005)
    for n in (250, 500, 750):
        place = np.abs(placed - n * 320 - 1).argmin()
        assert place / 16_000 - begin_s == pytest.approx(n * frame_s * (1 + drift), abs=0.0052)


@pytest.mark.parametrize(("frames", "frame_s", "drift"), [(20, 0.1, 0.012), (7, 0.4, 0.0075)])
def test_a_trend_takes_two_seconds_and_eight_frames(frames, frame_s, drift):
    """Over less, jitter of 20 ms is as steep as the steepest drift: the middle of the times counts, without a slope."""
    off_s = np.median(np.arange(frames) * frame_s * drift)
    assert off_s > 0.005
    _, placement = drifting(drift, seconds=frames * frame_s, frame_s=frame_s)
    assert placement.real_spans()[0][0] == pytest.approx(off_s, abs=1e-4)
    frames += 2 if frames == 20 else 1
    _, placement = drifting(drift, seconds=frames * frame_s, frame_s=frame_s)
    assert placement.real_spans()[0][0] == 0.0


def test_memory_stays_flat_however_long_the_sound_or_a_pause_is():
    """Of frames of 20 ms those of 12 s, the window before and what is looked at ahead, and 256 to forget at once."""
    placement, held = Placement(0.0, 0.0), 0
    for n in range(1500):
        placement.add(n * 0.02, 0.02)
        held = max(held, len(placement._begin_s))
        if placement.joined_s > LOOK_AHEAD_S:
            assert sum(map(len, placement.place(np.ones(320, np.float32)))) == 320
    assert held == pytest.approx(600 + 256, abs=3)
    placement = Placement(0.0, 0.0)
    for at_s in (0.0, 3600.0):
        placement.add(at_s, 0.6)
    assert max(map(len, placement.place(np.ones(19_200, np.float32)))) == 160_000  # zeros of 10 s at once
