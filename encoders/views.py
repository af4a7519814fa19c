"""Views of the sound, and features that are a view itself, or simple numbers made of it, without torch.

Tested by tests/encoders/test_views.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import DTypeLike, NDArray
from PIL import Image

from ..features_store.clock import PATCH_FRAMES
from .table import SMALL_CROP_PX

PATCH_BANDS = 64


@dataclass(frozen=True)
class Patches:
    """Log-mel patches of consecutive rows, natural logarithm: `frames` float32 [F, 64], what they have in common once.

    Patch i is frames [firsts[i], firsts[i] + 96); `firsts` int64 [N] do not fall. An array of them is [N, 96, 64].
    Raises ValueError for frames of another width, and patches that do not lie on them.
    """

    frames: NDArray[np.float32]
    firsts: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.frames.shape[1:] != (PATCH_BANDS,):
            raise ValueError(f"a log-mel frame has {PATCH_BANDS} bands, got {self.frames.shape = }")
        if len(self.firsts) and not 0 <= self.firsts[0] <= self.firsts[-1] <= len(self.frames) - PATCH_FRAMES:
            raise ValueError(
                f"patches of {PATCH_FRAMES} frames from {self.firsts[0]} to {self.firsts[-1]} do not lie on "
                f"{len(self.frames)} frames"
            )

    def __len__(self) -> int:
        return len(self.firsts)

    def __getitem__(self, rows: slice) -> Patches:
        firsts = self.firsts[rows]
        begin, end = (firsts[0], firsts[-1] + PATCH_FRAMES) if len(firsts) else (0, 0)
        return Patches(self.frames[begin:end], firsts - begin)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[np.float32]:
        if not len(self):
            return np.zeros((0, PATCH_FRAMES, PATCH_BANDS), dtype or np.float32)
        starting = sliding_window_view(self.frames, PATCH_FRAMES, axis=0)  # [F - 95, 64, 96]
        return np.ascontiguousarray(starting[self.firsts].swapaxes(1, 2), dtype or np.float32)


def as_they_are(views: NDArray[Any] | Patches) -> NDArray[Any]:
    """The crops uint8 [N, 112, 112, 3], or the patches as float32 [N, 96, 64], themselves."""
    return np.asarray(views)


def shrunk(crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Crops uint8 [N, 112, 112, 3] → [N, 48, 48, 3], bilinear and antialiased: what an IR-50 of 40 px is cut out of.

    Source: docs/sources.md (IR-50).
    """
    size = (SMALL_CROP_PX, SMALL_CROP_PX)
    small = [np.asarray(Image.fromarray(crop).resize(size, Image.Resampling.BILINEAR)) for crop in crops]
    return np.array(small, np.uint8).reshape(-1, *size, 3)


def quarters(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean colour of the four quarters of crops uint8 [N, 112, 112, 3], in [0, 1]: float32 [N, 12]."""
    half = crops.shape[1] // 2
    means = crops.reshape(-1, 2, half, 2, half, 3).mean(axis=(2, 4), dtype=np.float64)
    return np.asarray(means.reshape(-1, 12) / 255, np.float32)


def bands(patches: NDArray[np.float32] | Patches) -> NDArray[np.float32]:
    """Mean of eight groups of mel bands of log-mel patches float32 [N, 96, 64]: float32 [N, 8]."""
    grouped = np.asarray(patches).reshape(len(patches), PATCH_FRAMES, 8, PATCH_BANDS // 8)
    return np.asarray(grouped.mean(axis=(1, 3), dtype=np.float64), np.float32)


def word_shapes(words: Sequence[str]) -> NDArray[np.float32]:
    """Length of each word, sum of its letters' numbers, its place in the segment and the segment's length: [W, 4]."""
    rows = [(len(word), sum(map(ord, word)), place, len(words)) for place, word in enumerate(words)]
    return np.array(rows, np.float32).reshape(-1, 4)


VIEWS: dict[str, Callable[[Any], NDArray[Any]]] = {
    "crop112": as_they_are,
    "crop48": shrunk,
    "fake_face": quarters,
    "logmel": as_they_are,
    "fake_sound": bands,
    "fake_words": word_shapes,
}
