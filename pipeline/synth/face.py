"""The face of the planted corpus: one picture, warped by mouth and brow, moved, and set before a wall.

    frame px ── pose⁻¹ ──► face px ── expression⁻¹ ──► picture px ── bilinear ──► colour and matte
    frame px ◄── pose ──── face px ◄── expression ──── landmarks of the picture

Face px are those of the picture at rest. Expressions are smooth displacements, undone by a formula; landmarks
go the other way, by a few steps of fixed-point iteration.
Tested by tests/pipeline/synth/test_synth.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .recipes import Subject

Plane = NDArray[np.float32]
Points = NDArray[np.floating[Any]]

# Eyes, nose, corners of the mouth in scikit-image's `astronaut` (Eileen Collins; NASA, public domain), as MTCNN
# sees them in the picture at twice its size.
LANDMARKS_PX = np.array([[204.23, 100.90], [247.43, 104.27], [225.44, 128.16], [202.33, 140.07], [245.29, 142.50]])
HEAD_PX = (227.0, 108.0)  # what the head turns about
HEAD_HALF_PX = (66.0, 92.0)  # from there to the ears, and to chin and hair, with a margin
_MOUTH_PX, _MOUTH_SIZE_PX = (223.5, 143.0), (27.0, 19.0)
_BROW_PX, _BROW_SIZE_PX = (226.0, 96.0), (40.0, 15.0)
_LIGHT_PX, _LIGHT_SIZE_PX = (226.0, 98.0), (50.0, 26.0)
_CURVE_PX, _OPENING_PX, _LIFT_PX, _LIGHT = 3.2, 3.0, 2.2, 0.14  # what a unit of mouth or brow does
_WALL_DARKEST, _WALL_COLOUR = 110.0, 50.0


@dataclass(frozen=True)
class Pose:
    """Where the head is in the frame: `x_px`, `y_px` of its middle, `angle_rad` clockwise, `zoom`."""

    x_px: float
    y_px: float
    angle_rad: float
    zoom: float


def load_picture() -> Plane:
    """The base picture float32 [4, 512, 512]: RGB of 0 to 255, matte of 0 to 1.

    Raises ValueError without scikit-image.
    """
    try:
        from skimage.data import astronaut  # noqa: PLC0415 - an extra, and only this needs it
    except ImportError:
        raise ValueError("the face is scikit-image's, which is missing: pip install 'avfuse[demo]'") from None
    picture = np.asarray(astronaut(), np.float32)  # type: ignore[no-untyped-call]
    # The matte: head and shoulders without the wall, the flag and the rocket. The wall is bright and almost grey.
    wall_like = (picture.min(axis=-1) > _WALL_DARKEST) & (np.ptp(picture, axis=-1) < _WALL_COLOUR)
    v, u = np.mgrid[0 : picture.shape[0], 0 : picture.shape[1]].astype(np.float32)
    face_or_collar = _ellipse(u, v, (226, 118), (45, 70)) | _ellipse(u, v, (213, 222), (76, 52))
    person = face_or_collar | (_outline(u, v, 1.0) & ~ndimage.binary_opening(wall_like, iterations=2))
    matte = np.asarray(ndimage.gaussian_filter(person.astype(np.float32), 1.0), np.float32)
    return np.stack([*picture.transpose(2, 0, 1), matte])


def _outline(u: Points, v: Points, wider: float) -> NDArray[np.bool_]:
    """Where head and shoulders can be at all."""
    return _ellipse(u, v, (227, 95), (92 * wider, 105 * wider)) | _ellipse(u, v, (226, 300), (145 * wider, 155 * wider))


def _ellipse(u: Points, v: Points, middle_px: tuple[float, float], half_px: tuple[float, float]) -> NDArray[np.bool_]:
    across, down = (u - middle_px[0]) / half_px[0], (v - middle_px[1]) / half_px[1]
    return np.asarray(across * across + down * down < 1)


def paint(frame: Plane, picture: Plane, subject: Subject, pose: Pose, face: NDArray[np.float64]) -> None:
    """Draw the person into `frame` float32 [3, H, W], in place; `face` is (mouth, brow)."""
    y, x = np.mgrid[0 : frame.shape[1], 0 : frame.shape[2]].astype(np.float32)
    # Frame px to face px: the pose undone.
    cos, sin, size = math.cos(pose.angle_rad), math.sin(pose.angle_rad), subject.scale * pose.zoom
    right, down = x - pose.x_px, y - pose.y_px
    u = (cos * right + sin * down) / (size * subject.stretch * subject.side) + HEAD_PX[0]
    v = (cos * down - sin * right) / size + HEAD_PX[1]
    drawn = _outline(u, v, 1.05)  # elsewhere the matte is 0
    u, v = u[drawn], v[drawn]
    *colours, matte = _bilinear(picture, u, _raised(u, v, face))
    light = 1 + _LIGHT * float(face[1]) * _bump(u, v, _LIGHT_PX, _LIGHT_SIZE_PX)
    for plane, colour, gain in zip(frame, colours, subject.tint, strict=True):
        behind = plane[drawn]
        plane[drawn] = behind + matte * (colour * light * np.float32(gain) - behind)


def _bilinear(picture: Plane, u: Points, v: Points) -> list[Points]:
    """Each plane of `picture` [C, H, W] at N real-valued places, C arrays [N]; plane by plane is quick."""
    height, width = picture.shape[1:]
    left = np.clip(u.astype(np.int32), 0, width - 2)
    top = np.clip(v.astype(np.int32), 0, height - 2)
    right_share, bottom_share, corner = np.clip(u - left, 0, 1), np.clip(v - top, 0, 1), top * width + left
    seen = []
    for plane in picture.reshape(len(picture), -1):
        above, below = plane.take(corner), plane.take(corner + width)
        above += right_share * (plane.take(corner + 1) - above)
        below += right_share * (plane.take(corner + width + 1) - below)
        seen.append(above + bottom_share * (below - above))
    return seen


def landmarks(subject: Subject, pose: Pose, face: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the five points are in the frame, [5, 2] px; left is left as seen."""
    u, rest = LANDMARKS_PX.T
    v: Points = rest
    for _ in range(12):
        v = v + rest - _raised(u, v, face)
    # Face px to frame px: the pose.
    cos, sin, size = math.cos(pose.angle_rad), math.sin(pose.angle_rad), subject.scale * pose.zoom
    across, down = (u - HEAD_PX[0]) * (size * subject.stretch * subject.side), (v - HEAD_PX[1]) * size
    x, y = cos * across - sin * down + pose.x_px, sin * across + cos * down + pose.y_px
    return np.stack([x, y], axis=-1).astype(np.float64)[[1, 0, 2, 4, 3] if subject.mirrored else [0, 1, 2, 3, 4]]


def _raised(u: Points, v: Points, face: NDArray[np.float64]) -> Points:
    """The picture's row at face px: mouth > 0 lifts its corners and opens it, brow > 0 lifts brows and eyes."""
    mouth, brow = float(face[0]), float(face[1])
    right, down = (u - _MOUTH_PX[0]) / _MOUTH_SIZE_PX[0], (v - _MOUTH_PX[1]) / _MOUTH_SIZE_PX[1]
    shape = _CURVE_PX * (1.6 * right * right - 0.6) - _OPENING_PX * down
    lift = brow * _LIFT_PX * _bump(u, v, _BROW_PX, _BROW_SIZE_PX)
    return v + mouth * shape * _bump(u, v, _MOUTH_PX, _MOUTH_SIZE_PX) + lift


def _bump(u: Points, v: Points, middle_px: tuple[float, float], size_px: tuple[float, float]) -> Points:
    across = np.exp(-0.5 * ((u - middle_px[0]) / size_px[0]) ** 2)
    return np.asarray(across * np.exp(-0.5 * ((v - middle_px[1]) / size_px[1]) ** 2))
