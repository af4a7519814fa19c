"""Aligned faces: the followed face of each frame on the ArcFace template, or the organiser's own crops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...encoders.table import CROP_PX

if TYPE_CHECKING:
    pass


# Eyes, nose, corners of the mouth in the 112-px crop: insightface, docs/sources.md (IResNet-50).
TEMPLATE_PX = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)

_CROP_GRID = np.arange(CROP_PX) + 1j * np.arange(CROP_PX)[:, None]


def similarity(source: NDArray[np.floating], target: NDArray[np.floating]) -> tuple[complex, complex]:
    """Least-squares similarity transform as complex numbers: target ≈ a · source + b, with points x + iy.

    `source`, `target` [K, 2]. |a| is the scale, its angle the rotation (Umeyama 1991 without reflection).
    """
    from_z, to_z = (points[:, 0] + 1j * points[:, 1] for points in (source, target))
    from_mid, to_mid = from_z.mean(), to_z.mean()
    spread = np.sum(np.abs(from_z - from_mid) ** 2)
    a = complex(np.sum(np.conj(from_z - from_mid) * (to_z - to_mid)) / spread) if spread > 0 else 0j
    return a, complex(to_mid - a * from_mid)


def align(frame: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> NDArray[np.uint8] | None:
    """The face of `landmarks` [5, 2] px in `frame` [H, W, 3], bilinear on the ArcFace template; black outside.

    None where the landmarks span no area.
    """
    a, b = similarity(landmarks.astype(np.float64), TEMPLATE_PX)
    if abs(a) < 1e-6 or not np.isfinite(abs(a)):
        return None
    where = (_CROP_GRID - b) / a
    return _bilinear(frame, where.real, where.imag)


def _bilinear(frame: NDArray[np.uint8], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.uint8]:
    """`frame` at real-valued positions (pixel centres at whole numbers), black outside."""
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    across, down = ((at - whole).astype(np.float32)[..., None] for at, whole in ((x, left), (y, top)))
    corners = _inside(frame, top, left) if _all_inside(frame, top, left) else _anywhere(frame, top, left)
    above, below = (first + (second - first) * across for first, second in (corners[:2], corners[2:]))
    return np.rint(above + (below - above) * down).astype(np.uint8)


def _all_inside(frame: NDArray[np.uint8], top: NDArray[np.int64], left: NDArray[np.int64]) -> bool:
    height, width = frame.shape[:2]
    return bool(top.min() >= 0 and left.min() >= 0 and top.max() < height - 1 and left.max() < width - 1)


def _inside(frame: NDArray[np.uint8], top: NDArray[np.int64], left: NDArray[np.int64]) -> list[NDArray[np.float32]]:
    """The four pixels about each position: above left, above right, below left, below right."""
    width = frame.shape[1]
    pixels, first = np.ascontiguousarray(frame).reshape(-1, 3), top * width + left
    return [pixels.take(first + step, axis=0).astype(np.float32) for step in (0, 1, width, width + 1)]


def _anywhere(frame: NDArray[np.uint8], top: NDArray[np.int64], left: NDArray[np.int64]) -> list[NDArray[np.float32]]:
    return [_at(frame, top + down, left + right) for down in (0, 1) for right in (0, 1)]


def _at(frame: NDArray[np.uint8], row: NDArray[np.int64], column: NDArray[np.int64]) -> NDArray[np.float32]:
    height, width = frame.shape[:2]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    values = frame[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)].astype(np.float32)
    return np.asarray(values * inside[..., None])
