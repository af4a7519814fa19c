"""Our log-mel equals torchvggish's, docs/sources.md (VGGish)."""

import numpy as np
import pytest
from torchvggish import mel_features, vggish_input, vggish_params

from avfuse.pipeline.audio.logmel import _MEL, patches


def reference_log_mel(samples: np.ndarray) -> np.ndarray:
    return mel_features.log_mel_spectrogram(
        samples,
        audio_sample_rate=vggish_params.SAMPLE_RATE,
        log_offset=vggish_params.LOG_OFFSET,
        window_length_secs=vggish_params.STFT_WINDOW_LENGTH_SECONDS,
        hop_length_secs=vggish_params.STFT_HOP_LENGTH_SECONDS,
        num_mel_bins=vggish_params.NUM_MEL_BINS,
        lower_edge_hertz=vggish_params.MEL_MIN_HZ,
        upper_edge_hertz=vggish_params.MEL_MAX_HZ,
    )


def speech(seconds: float) -> np.ndarray:
    """Something with harmonics, pauses and a noise floor."""
    at_s = np.arange(int(seconds * 16_000)) / 16_000
    voice = np.sum([np.sin(2 * np.pi * 120 * k * at_s + k) / k for k in range(1, 30)], axis=0)
    voice = voice * (np.sin(2 * np.pi * 1.7 * at_s) > 0) * 0.2
    return (voice + np.random.default_rng(1).standard_normal(len(at_s)) * 1e-3).astype(np.float32)


def made(samples: np.ndarray, time_s: np.ndarray, align="start") -> np.ndarray:
    return np.concatenate([np.asarray(batch) for batch in patches([samples], time_s, align, 16)])


def test_examples_are_those_of_torchvggish():
    samples = speech(10)
    expected = vggish_input.waveform_to_examples(samples, 16_000, return_tensor=False)
    ours = made(samples, np.arange(len(expected)) * 0.96)
    assert ours.shape == expected.shape == (10, 96, 64)
    np.testing.assert_allclose(ours, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("rate", [30_000 / 1001, 25.0, 24_000 / 1001, 60.0])
def test_patches_are_cut_from_its_log_mel_at_the_frames_own_times(rate):
    samples = speech(4)
    padded = np.concatenate([samples, np.full(16_000, samples[-1])])
    reference = reference_log_mel(padded)
    time_s = np.arange(int(4 * rate)) / rate
    ours = made(samples, time_s)
    assert len(ours) == len(time_s)
    for row, at_s in enumerate(time_s):
        begin = round(at_s * 100)
        np.testing.assert_allclose(ours[row], reference[begin : begin + 96], atol=1e-6, rtol=0)


def test_one_second_gives_one_example():
    expected = vggish_input.waveform_to_examples(speech(1), 16_000, return_tensor=False)
    np.testing.assert_allclose(made(speech(1), np.zeros(1)), expected, atol=1e-6, rtol=0)


def test_mel_matrix():
    expected = mel_features.spectrogram_to_mel_matrix(64, 257, 16_000, 125.0, 7500.0)
    np.testing.assert_allclose(_MEL, expected, atol=1e-12)
    assert not _MEL[0].any()
