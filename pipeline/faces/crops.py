"""Aligned faces: the followed face of each frame on the ArcFace template, or the organiser's own crops.

Every encoder gets a view of its own side in pixels, cut from the frame once for all encoders of that side; what one
gets does not depend on the others.

Tested by tests/pipeline/faces/test_crops.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

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
    """One person's face over N frames: `views` uint8 RGB [F, px, px, 3] by side, of the F frames that have one.

    Raises ValueError where there are more or fewer crops than frames with a face.
    """

    views: Mapping[int, NDArray[np.uint8]]
    seen: SeenFaces

    def __post_init__(self) -> None:
        for crops in self.views.values():
            if len(crops) != int(self.seen.found.sum()):
                raise ValueError(f"{len(crops)} crops for {int(self.seen.found.sum())} frames with a face")

    @classmethod
    def of(cls, crops: Sequence[Mapping[int, NDArray[np.uint8]]], sides_px: Sequence[int], seen: SeenFaces) -> Self:
        """From the crops of each frame with a face, by side."""
        return cls(
            {px: np.array([crop[px] for crop in crops], np.uint8).reshape(-1, px, px, 3) for px in sides_px}, seen
        )


def follow_faces(
    batches: Iterable[FrameBatch], search: FaceSearch, sides_px: Sequence[int] = (CROP_PX,)
) -> Iterator[list[FaceCrops]]:
    """Crops of each followed person, batch by batch (one person, or under `all` as many as have appeared)."""
    for batch, cuts in with_cuts(batches):
        frames = list(search(batch, cuts))
        people = []
        for slot in range(max(len(chosen) for _, chosen in frames)):
            seen, crops = unseen(len(frames)), []
            for row, (faces, chosen) in enumerate(frames):
                face = chosen[slot] if slot < len(chosen) else None
                cut = {} if face is None else _cut(batch.pixels[row], faces.landmarks[face], sides_px)
                if cut:
                    crops.append(cut)
                    seen.boxes[row] = faces.boxes[face]
                    seen.landmarks[row] = faces.landmarks[face]
                    seen.scores[row] = faces.scores[face]
            people.append(FaceCrops.of(crops, sides_px, seen))
        yield people


def known_faces(
    batches: Iterable[FrameBatch], tracks: Sequence[SeenFaces], sides_px: Sequence[int] = (CROP_PX,)
) -> Iterator[list[FaceCrops]]:
    """Crops of people whose faces are known, batch by batch.

    Nobody is seen in frames past the end of a track, and where landmarks span no area.
    """
    first = 0
    for batch in batches:
        frames = len(batch.time_s)
        people = []
        for track in tracks:
            seen = unseen(frames)
            for values, known in zip(vars(seen).values(), vars(track).values(), strict=True):
                part = known[first : first + frames]
                values[: len(part)] = part
            crops = []
            for row in np.flatnonzero(seen.found):
                if cut := _cut(batch.pixels[row], seen.landmarks[row], sides_px):
                    crops.append(cut)
                else:
                    seen.boxes[row] = seen.landmarks[row] = np.nan
                    seen.scores[row] = 0
            people.append(FaceCrops.of(crops, sides_px, seen))
        yield people
        first += frames


def _cut(
    frame: NDArray[np.uint8], landmarks: NDArray[np.floating], sides_px: Sequence[int]
) -> dict[int, NDArray[np.uint8]]:
    """A face in every size; none where the landmarks span no area."""
    crops = {px: align(frame, landmarks, px) for px in sides_px}
    return {px: crop for px, crop in crops.items() if crop is not None}


def aligned_crops(
    folder: Path, first_frame: int, num_frames: int, sides_px: Sequence[int] = (CROP_PX,)
) -> tuple[FaceCrops, list[str]]:
    """The organiser's crops `%05d.jpg` of frames [first, first + N) (file number = frame + 1), and what was wrong.

    A missing number is a missing face; so is a picture that does not open, which is also reported. Other sizes
    are resized, antialiased: bilinear to 112 px, bicubic to the others, as S4's code enlarged them
    (docs/sources.md (Visual encoders)). Boxes and landmarks are unknown (NaN); the score is 1 where there is a crop.
    """
    seen = unseen(num_frames)
    crops, problems = [], []
    for row in range(num_frames):
        path = folder / f"{first_frame + row + 1:05d}.jpg"
        try:
            with Image.open(path) as picture:
                rgb = picture.convert("RGB")
            resized = {}
            for px in sides_px:
                kind = Image.Resampling.BILINEAR if px == CROP_PX else Image.Resampling.BICUBIC
                resized[px] = np.asarray(rgb if rgb.size == (px, px) else rgb.resize((px, px), kind), np.uint8)
        except FileNotFoundError:
            continue
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's fault, not the picture's: no reason to call the face missing
            problems.append(f"{path.name}: {error}")
            continue
        crops.append(resized)
        seen.scores[row] = 1.0
    return FaceCrops.of(crops, sides_px, seen), problems
