"""Aligned faces: the followed face of each frame on the ArcFace template, or the organiser's own crops.

Tested by tests/pipeline/faces/test_crops.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...encoders.table import CROP_PX
from ..media.types import FrameBatch
from .align import align
from .shots import with_cuts

if TYPE_CHECKING:
    from .search import FaceSearch


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


def unseen(num_frames: int) -> SeenFaces:
    """Frames without a face."""
    return SeenFaces(
        np.full((num_frames, 4), np.nan, np.float32),
        np.full((num_frames, 5, 2), np.nan, np.float32),
        np.zeros(num_frames, np.float32),
    )


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
        frames = list(search(batch, cuts))
        people = []
        for slot in range(max(len(chosen) for _, chosen in frames)):
            seen, pixels = unseen(len(frames)), []
            for row, (faces, chosen) in enumerate(frames):
                face = chosen[slot] if slot < len(chosen) else None
                crop = None if face is None else align(batch.pixels[row], faces.landmarks[face])
                if crop is not None:
                    pixels.append(crop)
                    seen.boxes[row] = faces.boxes[face]
                    seen.landmarks[row] = faces.landmarks[face]
                    seen.scores[row] = faces.scores[face]
            people.append(FaceCrops(np.array(pixels, np.uint8).reshape(-1, CROP_PX, CROP_PX, 3), seen))
        yield people


def known_faces(batches: Iterable[FrameBatch], tracks: Sequence[SeenFaces]) -> Iterator[list[FaceCrops]]:
    """Crops of people whose faces are known, batch by batch; in frames past the end of a track nobody is seen."""
    first = 0
    for batch in batches:
        frames = len(batch.time_s)
        people = []
        for track in tracks:
            seen = unseen(frames)
            for values, known in zip(vars(seen).values(), vars(track).values(), strict=True):
                part = known[first : first + frames]
                values[: len(part)] = part
            crops = [align(batch.pixels[row], seen.landmarks[row]) for row in np.flatnonzero(seen.found)]
            pixels = np.array([crop for crop in crops if crop is not None], np.uint8)
            people.append(FaceCrops(pixels.reshape(-1, CROP_PX, CROP_PX, 3), seen))
        yield people
        first += frames


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
                rgb = picture.convert("RGB")
                if rgb.size != (CROP_PX, CROP_PX):
                    rgb = rgb.resize((CROP_PX, CROP_PX), Image.Resampling.BILINEAR)
        except FileNotFoundError:
            continue
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's fault, not the picture's: no reason to call the face missing
            problems.append(f"{path.name}: {error}")
            continue
        pixels.append(np.asarray(rgb, np.uint8))
        seen.scores[row] = 1.0
    return FaceCrops(np.array(pixels, np.uint8).reshape(-1, CROP_PX, CROP_PX, 3), seen), problems
