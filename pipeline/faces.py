"""Aligned faces: the followed face of each frame on the ArcFace template, or the organiser's own crops."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .config import CROP_PX
from .cuts import with_cuts
from .found import Faces
from .media import FrameBatch

if TYPE_CHECKING:
    from .search import FaceSearch

# Eyes, nose, corners of the mouth in the 112-px crop: insightface, docs/sources.md (IResNet-50).
TEMPLATE_PX = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)

_CROP_GRID = np.arange(CROP_PX) + 1j * np.arange(CROP_PX)[:, None]


@dataclass(frozen=True)
class SeenFaces:
    """Where one person's face was in N frames.

    `boxes` float32 [N, 4] and `landmarks` [N, 5, 2] in px of the displayed frame, NaN without a face; `scores`
    [N], the detector's probability, 0 without a face.
    """

    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]

    @property
    def found(self) -> NDArray[np.bool_]:
        """Bool [N]: true in the frames with a face."""
        return self.scores > 0

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class FaceCrops:
    """One person's face over N frames: `pixels` uint8 RGB [F, 112, 112, 3] of the F frames that have one."""

    pixels: NDArray[np.uint8]
    seen: SeenFaces

    def __post_init__(self) -> None:
        if len(self.pixels) != int(self.seen.found.sum()):
            raise ValueError(f"{len(self.pixels)} crops for {int(self.seen.found.sum())} frames with a face")


def follow_faces(batches: Iterable[FrameBatch], search: FaceSearch) -> Iterator[list[FaceCrops]]:
    """Crops of each followed person, batch by batch (one person, or under `all` as many as have appeared)."""
    for batch, cuts in with_cuts(batches):
        seen = list(search(batch, cuts))
        faces, chosen = [each for each, _ in seen], [row for _, row in seen]
        slots = max(len(row) for row in chosen)
        yield [
            _crops_of(batch.pixels, faces, [row[slot] if slot < len(row) else None for row in chosen])
            for slot in range(slots)
        ]


def _crops_of(frames: NDArray[np.uint8], faces: list[Faces], chosen: list[int | None]) -> FaceCrops:
    seen = unseen(len(frames))
    pixels = []
    for row, face in enumerate(chosen):
        crop = None if face is None else align(frames[row], faces[row].landmarks[face])
        if crop is not None:
            pixels.append(crop)
            seen.boxes[row] = faces[row].boxes[face]
            seen.landmarks[row] = faces[row].landmarks[face]
            seen.scores[row] = faces[row].scores[face]
    return FaceCrops(_stacked(pixels), seen)


def unseen(num_frames: int) -> SeenFaces:
    """Frames without a face."""
    return SeenFaces(
        np.full((num_frames, 4), np.nan, np.float32),
        np.full((num_frames, 5, 2), np.nan, np.float32),
        np.zeros(num_frames, np.float32),
    )


def _stacked(crops: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return np.stack(crops) if crops else np.zeros((0, CROP_PX, CROP_PX, 3), np.uint8)


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


def aligned_crops(folder: Path, first_frame: int, num_frames: int) -> tuple[FaceCrops, list[str]]:
    """The organiser's crops `%05d.jpg` of frames [first, first + N) (file number = frame + 1), and what was wrong.

    A missing number is a missing face; so is a picture that does not open, which is also reported. Other sizes
    are brought to 112 px. Boxes and landmarks are unknown (NaN); the score is 1 where there is a crop.
    """
    seen = unseen(num_frames)
    pixels, problems = [], []
    for row in range(num_frames):
        path = folder / f"{first_frame + row + 1:05d}.jpg"
        try:
            with Image.open(path) as picture:
                pixels.append(_sized(picture))
        except FileNotFoundError:
            continue
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's fault, not the picture's: no reason to call the face missing
            problems.append(f"{path.name}: {error}")
            continue
        seen.scores[row] = 1.0
    return FaceCrops(_stacked(pixels), seen), problems


def _sized(picture: Image.Image) -> NDArray[np.uint8]:
    rgb = picture.convert("RGB")
    if rgb.size != (CROP_PX, CROP_PX):
        rgb = rgb.resize((CROP_PX, CROP_PX), Image.Resampling.BILINEAR)
    return np.asarray(rgb, np.uint8)
