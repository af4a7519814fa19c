"""Aligned faces: the followed face of each frame on the ArcFace template, or the organiser's own crops."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...encoders.table import CROP_PX
from ..media.types import FrameBatch
from .detections import Detections
from .shots import with_cuts

if TYPE_CHECKING:
    from .search import FaceSearch

from .align import align


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
            raise ValueError(f"crops of {len(self.pixels)} frames, and a face in {int(self.seen.found.sum())}")


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


def _crops_of(frames: NDArray[np.uint8], faces: list[Detections], chosen: list[int | None]) -> FaceCrops:
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
