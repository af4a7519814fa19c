"""A face turned and scaled onto the ArcFace template, in as many pixels as an encoder takes.

    frame ── similarity of five points ── template of 112 px ── the same square in `side_px` pixels a side

Tested by tests/pipeline/faces/test_crops.py.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...encoders.table import CROP_PX

# Eyes, nose, corners of the mouth in the 112-px crop: insightface, docs/sources.md (IResNet-50).
TEMPLATE_PX = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)


def similarity(source: NDArray[np.floating], target: NDArray[np.floating]) -> tuple[complex, complex]:
    """Least-squares similarity transform as complex numbers: target ≈ a · source + b, with points x + iy.

    `source`, `target` [K, 2]. |a| is the scale, its angle the rotation (Umeyama 1991 without reflection).
    """
    from_z, to_z = (points[:, 0] + 1j * points[:, 1] for points in (source, target))
    from_mid, to_mid = from_z.mean(), to_z.mean()
    power = np.sum(np.abs(from_z - from_mid) ** 2)
    a = complex(np.sum(np.conj(from_z - from_mid) * (to_z - to_mid)) / power) if power > 0 else 0j
    return a, complex(to_mid - a * from_mid)


def align(
    frame: NDArray[np.uint8], landmarks: NDArray[np.floating], side_px: int = CROP_PX
) -> NDArray[np.uint8] | None:
    """The face of `landmarks` [5, 2] px in `frame` [H, W, 3], bilinear on the ArcFace template; black outside.

    uint8 [side_px, side_px, 3]. Any side shows what the 112 px of the template do: pixel k has its centre at
    (k + 1/2) · 112/side − 1/2 of theirs, as if the crop had been resized. None where the landmarks span no area.
    """
    a, b = similarity(landmarks.astype(np.float64), TEMPLATE_PX)
    if abs(a) < 1e-6 or not np.isfinite(abs(a)):
        return None
    of_template = (np.arange(side_px) + 0.5) * (CROP_PX / side_px) - 0.5  # 0, 1, 2 … at 112 px, exactly
    position = (
        of_template + 1j * of_template[:, None] - b
    ) / a  # of each pixel of the crop in the frame; pixel centres at whole numbers
    left, top = np.floor(position.real).astype(np.int64), np.floor(position.imag).astype(np.int64)
    across = (position.real - left).astype(np.float32)[..., None]
    down = (position.imag - top).astype(np.float32)[..., None]
    above_left, above_right, below_left, below_right = neighbours(frame, top, left)
    above = above_left + (above_right - above_left) * across
    below = below_left + (below_right - below_left) * across
    return np.rint(above + (below - above) * down).astype(np.uint8)


def neighbours(frame: NDArray[np.uint8], top: NDArray[np.int64], left: NDArray[np.int64]) -> list[NDArray[np.float32]]:
    """The four pixels about each position: above left, above right, below left, below right; black outside.

    `frame` [H, W, 3], `top` and `left` [Y, X] px; four times float32 [Y, X, 3].
    """
    height, width = frame.shape[:2]
    if top.min() >= 0 and left.min() >= 0 and top.max() < height - 1 and left.max() < width - 1:
        # All lie in the frame, as nearly always: one index instead of two, and no mask.
        pixels, first = np.ascontiguousarray(frame).reshape(-1, 3), top * width + left
        return [pixels.take(first + step, axis=0).astype(np.float32) for step in (0, 1, width, width + 1)]
    corners = []
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        in_frame = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        values = frame[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)].astype(np.float32)
        corners.append(np.asarray(values * in_frame[..., None]))
    return corners
