"""Our MFCC equal torchaudio's Kaldi-compatible ones with its deltas."""

import numpy as np
import pytest
import torch
from torchaudio.compliance import kaldi
from torchaudio.functional import compute_deltas

from avfuse.pipeline.audio.mfcc import mfcc_start_frames, mfccs


def reference(samples: np.ndarray) -> np.ndarray:
    cepstra = kaldi.mfcc(
        torch.from_numpy(samples)[None],
        num_ceps=13,
        num_mel_bins=26,
        low_freq=0.0,
        high_freq=8000.0,
        frame_length=25.0,
        frame_shift=10.0,
        window_type="hamming",
        preemphasis_coefficient=0.97,
        remove_dc_offset=True,
        dither=0.0,
        use_energy=False,
        cepstral_lifter=22.0,
        htk_compat=False,
        snip_edges=True,
        sample_frequency=16_000.0,
    )
    slopes = compute_deltas(cepstra.T[None], win_length=5)
    curves = compute_deltas(slopes, win_length=5)
    return torch.cat([cepstra, slopes[0].T, curves[0].T], dim=1).numpy()


def voice(count: int, level: float) -> np.ndarray:
    at_s = np.arange(count) / 16_000
    tone = sum(np.sin(2 * np.pi * 150 * k * at_s) / k for k in range(1, 25)) * (1 + np.sin(2 * np.pi * 3 * at_s))
    return (level * tone + np.random.default_rng(2).standard_normal(count) * 0.01).astype(np.float32)


@pytest.mark.parametrize("level", [0.01, 0.3])
@pytest.mark.parametrize("count", [16_000, 61_234])
@pytest.mark.parametrize("align", ["start", "center", "end"])
def test_rows_are_those_of_kaldi(count, level, align):
    samples = voice(count, level)
    time_s = np.arange(0, count / 16_000, 1001 / 30_000)
    starts = mfcc_start_frames(time_s, align)
    before = np.zeros(-starts.min() * 160, np.float32)
    expected = reference(np.concatenate([before, samples, np.full(16_000, samples[-1], np.float32)]))
    ours = np.concatenate(list(mfccs([samples], time_s, align, 20)))
    assert ours.shape == (len(time_s), 39)
    np.testing.assert_allclose(ours, expected[starts - starts.min()], atol=1e-3, rtol=0)
