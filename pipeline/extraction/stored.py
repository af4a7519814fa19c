"""What the store has of a trial that features are added to: its times, and the face track of each person.

Tested by tests/pipeline/extraction/test_adding.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...features_store.entries import FACE_ARRAYS
from ...features_store.records.failures import Stage
from ...features_store.schema import JsonValue, StoreMismatch
from ...features_store.store import FeatureStore
from ...shell.text import counted
from ..faces.crops import SeenFaces
from ..media.types import FrameBatch, MediaError, VideoInfo
from .jobs import Job

# A container that is read anew gives the same stamps; other versions of ffmpeg may round them otherwise.
_SAME_TIME_S = 1e-6


@dataclass(frozen=True)
class StoredTrial:
    """A trial, or the trials of a video's faces: `time_s` float64 [N] of the frames that have rows, N ≤ T.

    `frames`: decoded when it was made; `rows`: T; `tracks`: the face of each person in the frames of `time_s`, where
    they were asked for; `attributes`: of the trial, or of the group of faces.
    """

    names: tuple[str, ...]
    attributes: Mapping[str, JsonValue]
    time_s: NDArray[np.float64]
    frames: int
    rows: int
    tracks: tuple[SeenFaces, ...]


def read_stored(store: FeatureStore, job: Job) -> StoredTrial:
    """What the store has of a job's trial. Raises StoreMismatch, naming it, where that is broken or incomplete."""
    attributes = store.attributes(job.trial) or {}
    faces = attributes.get("faces")
    names = tuple(f"{job.trial}/face{face}" for face in range(faces)) if isinstance(faces, int) else (job.trial,)
    try:
        trials = [store[name] for name in names]
        frames = int(str(trials[0].attributes["frames_decoded"]))
        count = min(frames, trials[0].rows)
        time_s = trials[0].time_s[:count]
        tracks = []
        for trial in trials if job.keeps_track else ():
            arrays = (trial.read(name)[:count] for name in FACE_ARRAYS)
            tracks.append(SeenFaces(*arrays))
    except (KeyError, ValueError) as error:
        raise StoreMismatch(
            f"nothing can be added to trial {job.trial!r} ({error}): make it anew by --overwrite"
        ) from error
    return StoredTrial(names, attributes, time_s, frames, trials[0].rows, tuple(tracks))


def check_start(info: VideoInfo, stored: StoredTrial, job: Job) -> None:
    """Raise MediaError where the streams do not begin when they did: rows would be of other moments."""
    for name, now in (("video_start_s", info.video_start_s), ("audio_start_s", info.audio_start_s)):
        before = stored.attributes.get(name, now)
        if before != now and not (
            isinstance(before, float | int) and now is not None and abs(before - now) <= _SAME_TIME_S
        ):
            raise MediaError(
                str(info.path), Stage.VIDEO, f"{name} is {now} now, but {before} in the store; {_what_to_do(job)}"
            )


def checked_times(
    batches: Iterable[FrameBatch], stored: StoredTrial, info: VideoInfo, job: Job
) -> Iterator[FrameBatch]:
    """The same batches. Raises MediaError at the first frame that does not lie where the store has it."""
    first = 0
    for batch in batches:
        known = stored.time_s[first : first + len(batch.time_s)]
        wrong = np.flatnonzero(np.abs(batch.time_s[: len(known)] - known) > _SAME_TIME_S)
        if len(wrong):
            row = int(wrong[0])
            raise MediaError(
                *(str(info.path), Stage.VIDEO),
                f"frame {first + row} lies at {batch.time_s[row]:.6f} s now, but at {known[row]:.6f} s in the store; "
                f"{_what_to_do(job)}",
            )
        first += len(batch.time_s)
        yield batch
    if first != stored.frames:
        now = counted(first, "frame")
        raise MediaError(
            str(info.path), Stage.VIDEO, f"{now} decode now, but {stored.frames} did for the store; {_what_to_do(job)}"
        )


def _what_to_do(job: Job) -> str:
    return (
        "was it extracted with another ffmpeg? To make all features of this trial anew, name them all: "
        f"--overwrite --trials {job.trial} --features …"
    )
