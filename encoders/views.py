"""Features that are a view itself, or simple numbers made of it, without a network and without torch.

Tested by tests/encoders/test_views.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .table import SMALL_CROP_PX


def as_they_are(views: NDArray[Any]) -> NDArray[Any]:
    """The crops, or the patches, themselves."""
    return views


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


def bands(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of eight groups of mel bands of log-mel patches float32 [N, 96, 64]: float32 [N, 8]."""
    return np.asarray(patches.reshape(len(patches), 96, 8, 8).mean(axis=(1, 3), dtype=np.float64), np.float32)


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
