"""What log-mel and MFCC share: samples to 25 ms windows every 10 ms, mel bands, frames to rows, streaming. No files.

    samples   0        160       320              sample n at n/16000 s
    frame k   [160 k, 160 k + 400)                25 ms, every 10 ms; k < 0 reads the zeros before time 0

Source: docs/sources.md (Audio rows, VGGish, MFCC).
Tested by tests/pipeline/audio/test_logmel.py and tests/pipeline/audio/test_mfcc.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ..media.types import SAMPLE_RATE_HZ

GRID_SAMPLES = 160
WINDOW_SAMPLES = 400
FFT_SAMPLES = 512
_PIECE_FRAMES = 100
# Small enough for BLAS to start no threads (which fight with the other workers'), and one shape only, because
# BLAS rounds by shape: no number depends on how the audio arrives.
_GROUP_FRAMES = 10
_HOLE_SHARE = 0.05
_TAIL_SAMPLES = SAMPLE_RATE_HZ

Spans = Sequence[tuple[float, float]]


def windows(blocks: Iterable[NDArray[np.float32]], first: int) -> Iterator[NDArray[np.float32]]:
    """Yield the 25 ms windows of the 10 ms grid in pieces [F, 400], F ≤ 100, from frame `first` ≤ 0 on.

    `blocks` float32 [S]. Zeros stand before time 0; 1 s of the last sample's value follows the end (docs/sync.md).
    Without samples there are no windows.
    """
    step = _PIECE_FRAMES * GRID_SAMPLES
    needed = step - GRID_SAMPLES + WINDOW_SAMPLES
    held = np.zeros(-first * GRID_SAMPLES, np.float32)
    last: np.float32 | None = None
    for block in blocks:
        held = np.concatenate([held, block])
        last = held[-1] if len(block) else last
        while len(held) >= needed:
            yield sliding_window_view(held[:needed], WINDOW_SAMPLES)[::GRID_SAMPLES]
            held = held[step:]
    if last is not None:
        held = np.concatenate([held, np.full(_TAIL_SAMPLES, last, np.float32)])
        while len(held) >= WINDOW_SAMPLES:
            yield sliding_window_view(held[:needed], WINDOW_SAMPLES)[::GRID_SAMPLES]
            held = held[step:]


def mel_matrix(num_bands: int, low_hz: float, high_hz: float) -> NDArray[np.float64]:
    """Triangles [257, num_bands] over the bins of a spectrum, equally spaced and straight in the HTK mel domain.

    The bins at `low_hz` and `high_hz` get nothing: with VGGish's bounds the DC bin, with Kaldi's Nyquist's too.
    """
    hertz = np.linspace(0, SAMPLE_RATE_HZ / 2, FFT_SAMPLES // 2 + 1)
    bins = 1127.0 * np.log(1.0 + hertz / 700.0)[:, None]
    low_mel, high_mel = 1127.0 * np.log(1.0 + np.array([low_hz, high_hz]) / 700.0)
    edges = np.linspace(low_mel, high_mel, num_bands + 2)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    return np.asarray(np.maximum(0.0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))))


def matmul(frames: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """`frames` [F, A] @ `matrix` [A, B], each frame rounded alike whatever F is."""
    count = -(-len(frames) // _GROUP_FRAMES)
    groups = np.zeros((count * _GROUP_FRAMES, frames.shape[1]))
    groups[: len(frames)] = frames
    products = groups.reshape(count, _GROUP_FRAMES, -1) @ matrix
    return products.reshape(len(groups), -1)[: len(frames)]


def rows_on_grid(
    pieces: Iterable[NDArray[np.float64]], starts: NDArray[np.int64], length: int, batch_rows: int
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """Yield what `batch_rows` rows at a time read of a track that arrives in `pieces` [F, D].

    Row i reads frames [starts[i], starts[i] + length); `starts` [T] do not fall. A batch is the frames [R, D] that its
    rows read, each once and no others, and where each of its rows begins among them, [N]: R ≤ N · length. Rows beyond
    the track's end are not delivered. `pieces` is read to its end; what no row needs any more is forgotten.
    """
    held: NDArray[np.float64] | None = None
    begin, row = 0, 0
    ready: list[NDArray[np.float64]] = []
    firsts: list[int] = []
    for piece in pieces:
        held = piece if held is None else np.concatenate([held, piece])
        while row < len(starts) and starts[row] + length <= begin + len(held):
            known = max(0, length - int(starts[row] - starts[row - 1])) if ready else 0
            firsts.append(sum(map(len, ready)) - known)
            ready.append(held[starts[row] + known - begin : starts[row] + length - begin].copy())
            row += 1
            if len(ready) == batch_rows:
                yield np.concatenate(ready), np.array(firsts)
                ready, firsts = [], []
        done = len(held) if row == len(starts) else min(len(held), starts[row] - begin)
        held, begin = held[done:], begin + done
    if ready:
        yield np.concatenate(ready), np.array(firsts)


def lie_on(spans: Spans, starts: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
    """True where samples [start, start + length) lie on real spans, with half a sample of slack.

    `starts` int64 [N], the answer bool [N]; `spans`: (start, end) in s, which rise and do not touch: a damaged file has
    as many as frames. Holes of a twentieth of the length in all do not matter: 48 ms of a patch, which nothing else in
    the patch shows.
    """
    if not len(spans):
        return np.zeros(len(starts), np.bool_)
    begins, ends = (np.array(spans, np.float64) * SAMPLE_RATE_HZ).T
    most = _HOLE_SHARE * length
    tiny = begins[1:] - ends[:-1] <= most
    edges = np.stack([ends[:-1][tiny], begins[1:][tiny]], axis=1).ravel()
    missing = np.stack([np.zeros(tiny.sum()), np.diff(edges)[::2]], axis=1).ravel().cumsum()
    begins, ends = begins[np.r_[True, ~tiny]], ends[np.r_[~tiny, True]]
    last = np.searchsorted(begins - 0.5, starts, side="right") - 1  # of the spans that begin before it
    valid: NDArray[np.bool_] = (last >= 0) & (starts + length <= ends[last] + 0.5)
    if len(edges):
        valid &= np.interp(starts + length, edges, missing) - np.interp(starts, edges, missing) <= most + 0.5
    return valid
