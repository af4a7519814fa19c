"""From spooled rows to the arrays of a trial: every track of exactly T rows, with its validity."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...features_store.clock import MissingFace, fill_missing, fit_rows
from ...features_store.schema import FeatureTrack, RowSource
from ..faces.crops import SeenFaces
from .row_buffer import GatheredRows, RowBuffer


@dataclass(frozen=True)
class PersonRows:
    """One person over a video: embeddings of the frames with a face on disk, where it was in memory."""

    buffers: dict[str, RowBuffer]
    parts: list[SeenFaces]

    def seen(self) -> SeenFaces:
        """The face in every frame so far."""
        return SeenFaces(
            np.concatenate([part.boxes for part in self.parts]),
            np.concatenate([part.landmarks for part in self.parts]),
            np.concatenate([part.scores for part in self.parts]),
        )


def person_tracks(person: PersonRows, frames: int, length: int, missing: MissingFace) -> list[FeatureTrack]:
    """Visual features of `length` rows: frames without a face filled, the end trimmed or repeated."""
    found = person.seen().found
    frame_of_row, real = fit_rows(frames, length)
    source = fill_missing(found, missing)[frame_of_row]
    valid = found[frame_of_row] & real
    return [FeatureTrack(name, GatheredRows(buffer, source), valid) for name, buffer in person.buffers.items()]


def audio_track(name: str, buffer: RowBuffer, valid: NDArray[np.bool_], length: int) -> FeatureTrack:
    """An audio feature of `length` rows: rows without a full patch and rows past the video repeat the last.

    `valid` bool [frames]: whether a frame's patch lies on real audio.
    """
    source, real = fit_rows(len(buffer), length)
    flags = np.zeros(length, bool)
    flags[: len(valid)] = valid[:length]
    return FeatureTrack(name, GatheredRows(buffer, source), flags & real)


def face_arrays(person: PersonRows, length: int) -> dict[str, RowSource]:
    """Box, landmarks and score of each row; rows past the video have no face."""
    seen = person.seen()
    fitted: dict[str, RowSource] = {}
    for name, values, missing in (
        ("face_box", seen.boxes, np.nan),
        ("face_landmarks", seen.landmarks, np.nan),
        ("face_score", seen.scores, 0.0),
    ):
        rows = np.full((length, *values.shape[1:]), missing, np.float32)
        rows[: len(values)] = values[:length]
        fitted[name] = rows
    return fitted


def track_arrays(tracks: Iterable[FeatureTrack]) -> dict[str, RowSource]:
    """Each track's rows under its name and its flags under `<name>_valid`."""
    arrays: dict[str, RowSource] = {}
    for track in tracks:
        arrays[track.name] = track.rows
        arrays[f"{track.name}_valid"] = track.valid
    return arrays
