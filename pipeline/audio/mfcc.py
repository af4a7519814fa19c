"""Waveform to 39 MFCC features (13 cepstra, c0 first, with Δ and ΔΔ), one row per frame time, streaming.

As Kaldi's `compute-mfcc-feats` with dither 0, remove-dc-offset, preemphasis 0.97, window hamming, 26 mel bins
of 0–8000 Hz, 13 ceps, cepstral-lifter 22, use-energy false, snip-edges, samples of ±1; Δ over ±2 frames, the
track's first and last frame repeated beyond its ends. Source: docs/sources.md (MFCC).
Tested by tests/pipeline/audio/test_mfcc.py and tests/parity/test_mfcc.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ...features_store.clock import LOGMEL_RATE_HZ
from ...features_store.schema import AudioAlign
from ..media.types import SAMPLE_RATE_HZ
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

NUM_CEPSTRA = 13
_NUM_BANDS = 26
_PREEMPHASIS = 0.97
_LIFTER = 22
_FLOOR = float(np.finfo(np.float32).eps)
# How far a 25 ms window lies before the frame's time, in 10 ms frames.
_ALIGN_SHIFT_FRAMES = {"start": 0.0, "center": 1.25, "end": 2.5}
_DELTA_FRAMES = 2
_CONTEXT_FRAMES = 2 * _DELTA_FRAMES


def mfccs(
    blocks: Iterable[NDArray[np.float32]], time_s: NDArray[np.float64], align: AudioAlign, batch_rows: int
) -> Iterator[NDArray[np.float32]]:
    """Yield the rows at `time_s` [T], float32 [N, 39], in row order, `batch_rows` at a time.

    `blocks` are 16 kHz samples, contiguous from time 0, float32. Rows that want more than 1 s beyond the last
    sample are not delivered: the caller repeats the last row. `blocks` is always read to its end.
    Source: docs/sources.md (MFCC, Audio rows).
    """
    starts = mfcc_start_frames(time_s, align)
    first = min(0, int(starts.min(initial=0)))
    track = _with_deltas(_with_deltas(_cepstra(piece) for piece in windows(blocks, first)))
    for read, firsts in rows_on_grid((piece[:, _COLUMNS] for piece in track), starts - first, 1, batch_rows):
        yield read[firsts].astype(np.float32)


def mfcc_valid(time_s: NDArray[np.float64], align: AudioAlign, real_spans: Spans) -> NDArray[np.bool_]:
    """True [T] where all that the row reads is real sound: its window and four neighbours a side for ΔΔ.

    Nothing is read before the track's first window; spans in s from time 0.
    """
    starts = mfcc_start_frames(time_s, align)
    first = min(0, int(starts.min(initial=0)))
    begin = np.maximum(starts - _CONTEXT_FRAMES, first)
    ends = (starts + _CONTEXT_FRAMES) * GRID_SAMPLES + WINDOW_SAMPLES
    valid = np.zeros(len(starts), np.bool_)
    for length in np.unique(ends - begin * GRID_SAMPLES):
        rows = ends - begin * GRID_SAMPLES == length
        valid[rows] = lie_on(real_spans, begin[rows] * GRID_SAMPLES, int(length))
    return valid


def mfcc_start_frames(time_s: NDArray[np.float64], align: AudioAlign) -> NDArray[np.int64]:
    """10 ms index [T] of each row's window: the nearest to [t, t + 25 ms), centred on t, or [t − 25 ms, t).

    `time_s` [T] in s. Raises ValueError on another alignment.
    """
    if align not in _ALIGN_SHIFT_FRAMES:
        raise ValueError(f"audio alignment is one of {tuple(_ALIGN_SHIFT_FRAMES)}, got {align!r}")
    return np.rint(time_s * LOGMEL_RATE_HZ - _ALIGN_SHIFT_FRAMES[align]).astype(np.int64)


def _cepstra(frames: NDArray[np.float32]) -> NDArray[np.float64]:
    """[F, 400] → [F, 13]. Source: kaldi `feature-window.cc`, `feature-mfcc.cc`; torchaudio `compliance`."""
    frames64 = frames - frames.mean(axis=1, keepdims=True, dtype=np.float64)
    before = np.concatenate([frames64[:, :1], frames64[:, :-1]], axis=1)
    power = np.abs(np.fft.rfft((frames64 - _PREEMPHASIS * before) * _HAMMING, FFT_SAMPLES)) ** 2
    cepstra: NDArray[np.float64] = matmul(np.log(np.maximum(matmul(power, _MEL), _FLOOR)), _DCT)
    return cepstra


def _with_deltas(pieces: Iterable[NDArray[np.float64]]) -> Iterator[NDArray[np.float64]]:
    """Append to each frame [D] its slope over ±2 frames: [F, D] → [F, 2 D]; the ends are repeated outwards.

    Source: HTK Book 5.9, torchaudio `compute_deltas` with win_length 5.
    """
    held: NDArray[np.float64] | None = None
    for piece in pieces:
        before = piece[:1].repeat(_DELTA_FRAMES, axis=0) if held is None else held
        held = np.concatenate([before, piece])
        if len(held) > 2 * _DELTA_FRAMES:
            yield _sloped(held)
            held = held[-2 * _DELTA_FRAMES :]
    if held is not None:
        yield _sloped(np.concatenate([held, held[-1:].repeat(_DELTA_FRAMES, axis=0)]))


def _sloped(held: NDArray[np.float64]) -> NDArray[np.float64]:
    count = len(held) - 2 * _DELTA_FRAMES
    at = [held[i : i + count] for i in range(2 * _DELTA_FRAMES + 1)]
    return np.concatenate([at[2], ((at[3] - at[1]) + 2 * (at[4] - at[0])) / 10], axis=1)


def _dct_matrix() -> NDArray[np.float64]:
    """Orthonormal DCT-II [26, 13], each column times its lifter weight 1 + 11 · sin(π i / 22)."""
    ceps = np.arange(NUM_CEPSTRA)
    matrix = np.cos(np.pi / _NUM_BANDS * (np.arange(_NUM_BANDS)[:, None] + 0.5) * ceps) * np.sqrt(2 / _NUM_BANDS)
    matrix[:, 0] = np.sqrt(1 / _NUM_BANDS)
    weighted: NDArray[np.float64] = matrix * (1 + 0.5 * _LIFTER * np.sin(np.pi * ceps / _LIFTER))
    return weighted


_HAMMING = 0.54 - 0.46 * np.cos(2 * np.pi / (WINDOW_SAMPLES - 1) * np.arange(WINDOW_SAMPLES))
_MEL = mel_matrix(_NUM_BANDS, 0.0, SAMPLE_RATE_HZ / 2)
_DCT = _dct_matrix()
# Two rounds of slopes give [c, Δ, Δ, ΔΔ].
_COLUMNS = np.r_[: 2 * NUM_CEPSTRA, 3 * NUM_CEPSTRA : 4 * NUM_CEPSTRA]
