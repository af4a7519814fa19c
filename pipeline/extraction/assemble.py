"""From rows on disk to the arrays of a trial: every track of exactly T rows, with its validity.

Tested by tests/pipeline/extraction/test_row_buffer.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...encoders.table import feature
from ...features_store.clock import fill_missing, fit_rows
from ...features_store.schema import FeatureTrack, MissingFace, RowSource
from ..faces.crops import SeenFaces
from .row_buffer import GatheredRows, RowBuffer


@dataclass(frozen=True)
class PersonRows:
    """One person over a video: embeddings of the frames with a face on disk, where the face was in memory."""

    buffers: dict[str, RowBuffer]
    parts: list[SeenFaces]

    def seen(self) -> SeenFaces:
        """The face in every frame so far."""
        return SeenFaces(
            np.concatenate([part.boxes for part in self.parts]),
            np.concatenate([part.landmarks for part in self.parts]),
            np.concatenate([part.scores for part in self.parts]),
        )


def person_arrays(
    person: PersonRows, frames: int, length: int, missing: MissingFace, with_track: bool = True
) -> dict[str, RowSource]:
    """Visual features of `length` rows; `with_track`: boxes, landmarks and scores too. Nothing without a feature.

    Arrays [length, ...] by name, and their flags; `frames`: how many the video has. In the features, frames without a
    face are filled and the end is trimmed or repeated; rows past the video have no box. Faces past the last row do not
    count: whoever adds a feature later has not seen them.
    """
    if not person.buffers:
        return {}
    seen = person.seen()
    found = seen.found[: min(frames, length)]
    frame_of_row, real = fit_rows(len(found), length)
    source = fill_missing(found, missing)[frame_of_row]
    valid = found[frame_of_row] & real
    tracks = (
        FeatureTrack(name, GatheredRows(buffer, source), valid, feature(name).spec)
        for name, buffer in person.buffers.items()
    )
    arrays = track_arrays(tracks)
    if not with_track:
        return arrays
    for name, values, nothing in (
        ("face_box", seen.boxes, np.nan),
        ("face_landmarks", seen.landmarks, np.nan),
        ("face_score", seen.scores, 0.0),
    ):
        rows = np.full((length, *values.shape[1:]), nothing, np.float32)
        rows[: len(values)] = values[:length]
        arrays[name] = rows
    return arrays


def sound_arrays(
    buffers: Mapping[str, RowBuffer], valid_rows: Mapping[str, NDArray[np.bool_]], length: int
) -> dict[str, RowSource]:
    """Audio features of `length` rows: rows without a full patch and rows past the video repeat the last.

    Arrays [length, ...] by name, and their flags. `valid_rows` bool [N] of each feature: whether a frame's patch lies
    on real audio. Without audio there are zero rows, all invalid.
    """
    tracks = []
    for name, buffer in buffers.items():
        source, real = fit_rows(len(buffer), length)
        valid = valid_rows.get(name, np.zeros(0, bool))
        flags = np.zeros(length, bool)
        flags[: len(valid)] = valid[:length]
        tracks.append(FeatureTrack(name, GatheredRows(buffer, source), flags & real, feature(name).spec))
    return track_arrays(tracks)


def track_arrays(tracks: Iterable[FeatureTrack]) -> dict[str, RowSource]:
    """Each track's rows [T, ...] under its name and its flags, bool [T], under `<name>_valid`."""
    return {name: source for track in tracks for name, source in track.arrays().items()}
