"""Waveform to VGGish log-mel patches, one per frame time, streaming.

    samples   0        160       320              sample n at n/16000 s
    frame k   [160 k, 160 k + 400)                25 ms, every 10 ms
    patch     frames [round(100 t), + 96)         samples [160 s, 160 s + 15600)

Memory does not grow with the length of the sound. Source: docs/sources.md (Audio rows, VGGish).
Tested by tests/pipeline/audio/test_logmel.py and tests/parity/test_logmel.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ...encoders.views import PATCH_BANDS, Patches
from ...features_store.clock import PATCH_FRAMES, patch_start_frames
from ...features_store.schema import AudioAlign
from .framing import (
    FFT_SAMPLES,
    GRID_SAMPLES,
    WINDOW_SAMPLES,
    Spans,
    lie_on,
    matmul,
    mel_matrix,
    rows_on_grid,
    windows,
)

PATCH_SAMPLES = (PATCH_FRAMES - 1) * GRID_SAMPLES + WINDOW_SAMPLES
_LOW_HZ, _HIGH_HZ = 125.0, 7500.0
_LOG_OFFSET = 0.01


def patches(
    blocks: Iterable[NDArray[np.float32]], time_s: NDArray[np.float64], align: AudioAlign, batch_rows: int
) -> Iterator[Patches]:
    """Yield the patches of the rows at `time_s` [T], in row order, `batch_rows` at a time.

    `blocks` are 16 kHz samples, contiguous from time 0, float32. Rows that want more than 1 s beyond the last
    sample have no patch and are not delivered: the caller repeats the last row. `blocks` is always read to
    its end.
    Equal to torchvggish's `vggish_input` on the 10 ms grid. Source: docs/sources.md (Audio rows, VGGish).
    """
    starts = patch_start_frames(time_s, align)
    first = min(0, int(starts.min(initial=0)))
    frames = (log_mel(piece) for piece in windows(blocks, first))
    for read, firsts in rows_on_grid(frames, starts - first, PATCH_FRAMES, batch_rows):
        yield Patches(read.astype(np.float32), firsts)


def patch_valid(time_s: NDArray[np.float64], align: AudioAlign, real_spans: Spans) -> NDArray[np.bool_]:
    """True [T] where all 15,600 samples that the row's patch reads are real sound; spans in s from time 0."""
    return lie_on(real_spans, patch_start_frames(time_s, align) * GRID_SAMPLES, PATCH_SAMPLES)


def log_mel(frames: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-mel of windows: ln(|rfft(periodic Hann · frame)| @ mel + 0.01), [F, 400] → [F, 64].

    Source: torchvggish `mel_features.log_mel_spectrogram` with `vggish_params`.
    """
    spectrum = np.abs(np.fft.rfft(frames * _HANN, FFT_SAMPLES))
    logs: NDArray[np.float64] = np.log(matmul(spectrum, _MEL) + _LOG_OFFSET)
    return logs


_HANN = 0.5 - 0.5 * np.cos(2 * np.pi / WINDOW_SAMPLES * np.arange(WINDOW_SAMPLES))
_MEL = mel_matrix(PATCH_BANDS, _LOW_HZ, _HIGH_HZ)
