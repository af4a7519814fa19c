"""The contact sheet: aligned faces along a trial, and its gaps between them.

    time ──►   ▣ ▣ ▣ ▨ 2.4 s ▣ ▣ ▨ 0.3 s ▣ ▣        ▣ a face, ▨ a gap, one tile each

The faces come from stored crops, else from the organiser's, else they are cut out of the video where the stored
landmarks are. Tested by tests/apps/report/test_sheet.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...features_store.entries import FACES
from ...features_store.trial import Trial
from ...pipeline.faces.align import align
from ...pipeline.faces.crops import aligned_crops
from ...pipeline.media.readers import FrameReader, prefetch
from ...pipeline.media.types import VideoInfo
from .signals import gaps_of

TILE_PX = 96
FACES_SHOWN = 48
GAPS_SHOWN = 16
ACROSS = 12
_STORED = ("crop112", "crop48")

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Tile:
    """A face at a row, `place` its number in the picture, or a gap (`place` None) from `time_s` to `end_s`."""

    row: int
    time_s: float
    place: int | None = None
    end_s: float | None = None

    @property
    def at(self) -> tuple[int, int]:
        """Column and line of its face in the picture of all of them."""
        return (self.place or 0) % ACROSS, (self.place or 0) // ACROSS


@dataclass(frozen=True)
class Sheet:
    """Tiles in order of time, and where their faces came from; without faces, why there are none."""

    tiles: tuple[Tile, ...]
    source: str
    faces: tuple[Picture, ...]

    @property
    def across(self) -> int:
        """How many faces stand side by side in the picture."""
        return min(ACROSS, len(self.faces))

    def write(self, path: Path) -> None:
        """All faces in one JPEG, in rows of twelve."""
        down = -(-len(self.faces) // ACROSS)
        whole = Image.new("RGB", (self.across * TILE_PX, down * TILE_PX))
        for place, face in enumerate(self.faces):
            small = Image.fromarray(face).resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)
            whole.paste(small, (place % ACROSS * TILE_PX, place // ACROSS * TILE_PX))
        whole.save(path, "JPEG", quality=82)


def contact_sheet(
    trial: Trial,
    time_s: NDArray[np.float64],
    there: NDArray[np.bool_],
    info: VideoInfo | None,
    organisers: Path | None,
) -> Sheet:
    """The sheet of a trial with a face where `there` [T]; `organisers`: folder of all trials' aligned crops.

    The video is decoded, once and up to the last face that is shown, only where there are no crops. Raises
    StoreMismatch where rows are broken, MediaError where the video cannot be read.
    """
    gaps = gaps_of(there, time_s)
    longest = sorted(gaps, key=lambda gap: gap[0] - gap[1])[:GAPS_SHOWN]
    with_face = np.flatnonzero(there)
    spread = np.linspace(0, len(with_face) - 1, min(FACES_SHOWN, len(with_face))).round().astype(np.int64)
    rows = np.unique(with_face[spread]).tolist()
    faces: Mapping[int, Picture] = {}
    source = ""
    folder = _organisers_folder(trial, organisers)
    stored = next((name for name in _STORED if name in trial), None)
    if stored is not None:
        faces, source = _stored(trial, stored, rows), f"the store's {stored}"
    elif folder is not None:
        found = ((row, aligned_crops(folder, row, 1)[0].views[112]) for row in rows)
        faces, source = {row: crop[0] for row, crop in found if len(crop)}, "the crops that were extracted from"
    elif info is not None and "face_landmarks" in trial:
        faces, source = _from_video(trial, info, rows), "the video, where the stored landmarks are"
    shown = [row for row in rows if row in faces]
    tiles = [Tile(row, float(time_s[row]), place) for place, row in enumerate(shown)]
    tiles += [Tile(int(np.searchsorted(time_s, start_s)), start_s, None, end_s) for start_s, end_s in longest]
    tiles.sort(key=lambda tile: tile.time_s)
    return Sheet(tuple(tiles), source, tuple(faces[row] for row in shown))


def _organisers_folder(trial: Trial, organisers: Path | None) -> Path | None:
    if organisers is None or not trial.entries.get(FACES, {}).get("settings", {}).get("aligned"):
        return None
    places = (organisers / trial.name, organisers / Path(trial.name).name)
    return next((place for place in places if place.is_dir()), None)


def _stored(trial: Trial, name: str, rows: Sequence[int]) -> dict[int, Picture]:
    valid, found = trial.valid(name), {}
    for row in rows:
        if valid[row]:
            found[row] = np.asarray(trial.window(name, row, row + 1)[0], np.uint8)
    return found


def _from_video(trial: Trial, info: VideoInfo, rows: Sequence[int]) -> dict[int, Picture]:
    landmarks = trial.read("face_landmarks")
    wanted = {row for row in rows if np.isfinite(landmarks[row]).all()}
    found: dict[int, Picture] = {}
    first, last = 0, max(wanted, default=-1)
    if last < 0:
        return found
    with FrameReader(info) as reader, closing(prefetch(reader, reader.kill)) as batches:
        for batch in batches:
            for row in sorted(wanted & set(range(first, first + len(batch.time_s)))):
                crop = align(batch.pixels[row - first], landmarks[row])
                if crop is not None:
                    found[row] = crop
            first += len(batch.time_s)
            if first > last:
                break
    return found
