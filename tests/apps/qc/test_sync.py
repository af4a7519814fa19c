"""Offsets between a mouth and a voice: planted ones are found, chance and silence are not sure."""

import numpy as np
import pytest

from avfuse.apps.qc.sync import LEAST_CONFIDENCE, Incomparable, Offset, darkness, find_offset, vowel_level


@pytest.fixture
def syllables():
    """How far a mouth is open at these times, s: syllables at random, the same in all calls."""
    rng = np.random.default_rng(3)
    starts_s, widths_s = np.sort(rng.uniform(0, 30, 90)), rng.uniform(0.08, 0.2, 90)

    def at(time_s):
        return np.exp(-(((time_s[:, None] - starts_s) / widths_s) ** 2)).sum(axis=1)

    return at


@pytest.mark.parametrize("late_s", [-0.3, -0.2, 0.0, 0.2, 0.34])
@pytest.mark.parametrize("rate_hz", [12.0, 25.0, 29.97])
def test_a_planted_offset_is_found(syllables, late_s, rate_hz):
    rng = np.random.default_rng(0)
    time_s = np.arange(0, 12, 1 / rate_hz)
    mouth = np.stack([syllables(time_s), syllables(time_s)], axis=1) + rng.normal(0, 0.3, (len(time_s), 2))
    level = syllables(time_s - late_s) + rng.normal(0, 0.3, len(time_s)) + 0.05 * time_s  # and slowly louder
    found = find_offset(time_s, mouth, time_s, level)
    assert isinstance(found, Offset)
    assert found.verdict == "sure"
    assert found.offset_s == pytest.approx(late_s, abs=0.03)


def test_a_gap_in_the_face_does_not_count(syllables):
    time_s = np.arange(0, 12, 0.04)
    mouth = np.stack([syllables(time_s)] * 2, axis=1)
    mouth[100:150] = np.nan
    found = find_offset(time_s, mouth, time_s, syllables(time_s - 0.2))
    assert isinstance(found, Offset)
    assert found.verdict == "sure"
    assert found.offset_s == pytest.approx(0.2, abs=0.02)
    assert found.seconds < 10.5


@pytest.mark.parametrize("seconds", [3, 20])
@pytest.mark.parametrize("smooth_s", [0.14, 0.5])
def test_what_does_not_belong_together_is_rarely_sure(seconds, smooth_s):
    """However short the clip, and however slowly mouth and voice move: what is slow agrees more often by chance."""
    sure, smooth = 0, np.hanning(round(50 * smooth_s))
    for seed in range(60):
        rng = np.random.default_rng(seed)
        time_s = np.arange(0, seconds, 0.04)
        mouth, level = (np.convolve(rng.normal(size=len(time_s)), smooth, "same") for _ in range(2))
        found = find_offset(time_s, np.stack([mouth, mouth], axis=1), time_s, level)
        sure += found.verdict == "sure"
    assert sure <= 6  # 5 %, and what chance adds to that


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("nobody", "no face"),
        ("silence", "silence"),
        ("short", "less than 2 s with a face and sound"),
        ("a still mouth", "a mouth that does not move"),
        ("no real sound", "no sound"),
    ],
)
def test_nothing_to_compare(syllables, what, reason):
    time_s = np.arange(0, 1.5 if what == "short" else 12, 0.04)
    mouth, level = np.stack([syllables(time_s)] * 2, axis=1), syllables(time_s)
    if what == "nobody":
        mouth[:] = np.nan
    if what == "silence":
        level[:] = -4.6
    if what == "a still mouth":
        mouth[:] = 1.0
    heard = np.full(len(time_s), what != "no real sound")
    assert find_offset(time_s, mouth, time_s, level, heard) == Incomparable(reason)


def test_the_verdict_counts_in_what_chance_makes():
    assert Offset(0.2, 0.6, 0.45, 4.0, 0.22).verdict == "sure"
    assert Offset(0.2, 0.6, 0.25, 4.0, 0.22).verdict == "not sure"  # it does not stand out
    assert Offset(0.2, 0.25, 0.06, 20.0, 0.1).verdict == "not sure"
    assert Offset(0.2, 0.05, 0.05, 1000.0, 0.01).verdict == "not sure"  # certain, and of no weight
    words = f"+0.20 s, sure (confidence 4.8, {LEAST_CONFIDENCE} is needed; 4 s compared)"
    assert Offset(0.2, 0.6, 0.45, 4.0, 0.22).in_words() == words
    assert Incomparable("no face").in_words() == "not sure (no face)"


def test_an_open_mouth_is_dark():
    crops = np.full((2, 48, 48, 3), 150, np.uint8)
    crops[1, 38:44, 20:28] = 30
    shut, wide = darkness(crops)
    assert (wide > shut).all()
    large = np.repeat(np.repeat(crops, 7, axis=1), 7, axis=2)[:, ::3, ::3]
    np.testing.assert_allclose(darkness(large)[1], wide, rtol=0.1)


def test_vowels_count_and_hiss_does_not():
    quiet = np.full((1, 5, 64), np.log(0.01), np.float32)
    hiss, vowel = quiet.copy(), quiet.copy()
    hiss[:, :, 50:] = vowel[:, :, 14:20] = 1.0
    assert vowel_level(vowel)[0] > vowel_level(hiss)[0] == pytest.approx(np.log(0.01))
