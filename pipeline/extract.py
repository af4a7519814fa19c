"""One video, told from top to bottom: probe → picture → sound → store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..features_store.clock import fit_time
from ..features_store.store import FeatureStore
from ..features_store.types import JsonValue, RowSource
from . import media
from .config import ExtractConfig
from .detect import FaceDetector
from .embed import Embedder
from .faces import CROP_PX, FaceCrops, aligned_crops, follow_faces, unseen
from .follow import Followers
from .jobs import Job, Receipt
from .provenance import run_attributes, video_attributes
from .sound import Sound, read_sound
from .spool import Spool
from .tracks import PersonRows, face_arrays, person_tracks, track_arrays
from .weights import WeightSource

Progress = Callable[[int, float, float | None], None]  # frames so far, their time and the whole's length in s
LENGTH_TOLERANCE_ROWS = 5
_PROBLEMS_NAMED = 5


@dataclass(frozen=True)
class Toolbox:
    """What every video of a run shares: the settings, the loaded networks and what they are."""

    config: ExtractConfig
    fingerprint: str
    weights: Mapping[str, WeightSource]
    embedders: Mapping[str, Embedder]
    detector: FaceDetector | None
    stall_timeout_s: float


@dataclass(frozen=True)
class Picture:
    """What the frames gave: their times, the people in them, and how decoding ended."""

    time_s: NDArray[np.float64]
    people: list[PersonRows]
    ending: media.Ending


def extract_video(job: Job, store: FeatureStore, tools: Toolbox, progress: Progress) -> Receipt:
    """Extract one trial and write it; the frames are never all in memory.

    Raises MediaError when the video cannot be read, OSError when the store cannot be written; nothing of the
    trial is left then.
    """
    started_s = time.monotonic()
    info = media.probe(job.video)
    with store.temporary_directory() as scratch:
        picture = _read_picture(info, job, tools, scratch, progress)
        length = job.length or len(picture.time_s)
        sound = read_sound(info, picture.time_s[:length], tools.config, tools.embedders, scratch, tools.stall_timeout_s)
        warnings = _warnings(job, picture, sound, length)
        attributes: dict[str, JsonValue] = {
            **video_attributes(info, picture.time_s),
            **run_attributes(tools.config, tools.fingerprint, tools.weights),
            "face": job.face,
            "truncated": picture.ending.truncated,
            "audio": "present" if sound.present else "absent",
            "trial_length_from": "video" if job.length is None else "annotations",
            "warnings": list(warnings),
        }
        _write(store, job, tools.config, picture, sound, length, attributes)
    return Receipt(
        trial=job.trial,
        video=job.name,
        rows=length,
        frames=len(picture.time_s),
        fps=str(attributes["fps"]),
        vfr=bool(attributes["vfr"]),
        faces=_face_share(picture),
        audio=sound.present,
        truncated=picture.ending.truncated,
        seconds=time.monotonic() - started_s,
        warnings=tuple(warnings),
    )


def _read_picture(info: media.VideoInfo, job: Job, tools: Toolbox, scratch: Path, progress: Progress) -> Picture:
    """Frame times, and the followed face of each person in each frame."""
    times: list[NDArray[np.float64]] = []
    problems: list[str] = []
    people: list[PersonRows] = []
    detecting = bool(tools.config.visual) and job.crops is None
    with media.FrameReader(info, pixels=detecting, stall_timeout_s=tools.stall_timeout_s) as reader:
        batches = _noting_times(reader, times, lambda frames, at_s: progress(frames, at_s, info.duration_s))
        groups = _detected_faces(batches, info, job, tools) if detecting else _given_faces(batches, job, problems)
        decoded = 0
        for group in groups:
            while len(people) < len(group):
                people.append(_new_person(scratch, len(people), decoded, tools))
            _embed(people, group, tools)
            decoded += len(group[0].seen)
    ending = reader.ending
    warnings = (*ending.warnings, *problems[:_PROBLEMS_NAMED])
    return Picture(np.concatenate(times), people, media.Ending(ending.truncated, warnings))


def _detected_faces(
    batches: Iterable[media.FrameBatch], info: media.VideoInfo, job: Job, tools: Toolbox
) -> Iterator[list[FaceCrops]]:
    if tools.detector is None:
        raise ValueError("visual features without aligned crops need a face detector")
    followers = Followers(job.face, (info.width_px, info.height_px))
    return follow_faces(batches, tools.detector, followers)


def _noting_times(
    batches: Iterable[media.FrameBatch],
    times: list[NDArray[np.float64]],
    progress: Callable[[int, float], None],
) -> Iterator[media.FrameBatch]:
    decoded = 0
    for batch in batches:
        times.append(batch.time_s)
        decoded += len(batch.time_s)
        progress(decoded, float(batch.time_s[-1]))
        yield batch


def _given_faces(batches: Iterable[media.FrameBatch], job: Job, problems: list[str]) -> Iterator[list[FaceCrops]]:
    """The organiser's crops of the decoded frames; without a crops folder there is nobody to look at."""
    first = 0
    for batch in batches:
        frames = len(batch.time_s)
        if job.crops is None:
            yield [FaceCrops(np.zeros((0, CROP_PX, CROP_PX, 3), np.uint8), unseen(frames))]
        else:
            crops, wrong = aligned_crops(job.crops, first, frames)
            problems.extend(wrong)
            yield [crops]
        first += frames


def _new_person(scratch: Path, number: int, frames_before: int, tools: Toolbox) -> PersonRows:
    spools = {
        name: Spool(scratch / f"{name}-{number}.f32", (tools.embedders[name].dim,)) for name in tools.config.visual
    }
    return PersonRows(spools, [unseen(frames_before)])


def _embed(people: list[PersonRows], group: list[FaceCrops], tools: Toolbox) -> None:
    for person, crops in zip(people, group, strict=True):
        person.parts.append(crops.seen)
        if len(crops.pixels):
            for name, spool in person.spools.items():
                spool.append(tools.embedders[name].rows(crops.pixels))


def _write(
    store: FeatureStore,
    job: Job,
    config: ExtractConfig,
    picture: Picture,
    sound: Sound,
    length: int,
    attributes: dict[str, JsonValue],
) -> None:
    """One trial; under `all` one a person, below a group that says how many there are and is written last."""
    shared = {"time": fit_time(picture.time_s, length), **track_arrays(sound.tracks(length))}
    people = [_person_arrays(person, len(picture.time_s), length, config) for person in picture.people]
    if job.face != "all":
        store.write(job.trial, {**shared, **people[0]}, attributes)
        return
    store.remove(job.trial)  # a former run may have seen more people
    for number, arrays in enumerate(people):
        store.write(f"{job.trial}/face{number}", {**shared, **arrays}, attributes)
    store.write(job.trial, {}, {**attributes, "faces": len(people), "rows": length})


def _person_arrays(person: PersonRows, frames: int, length: int, config: ExtractConfig) -> dict[str, RowSource]:
    if not person.spools:
        return {}
    tracks = person_tracks(person, frames, length, config.missing_face)
    return {**track_arrays(tracks), **face_arrays(person, length)}


def _face_share(picture: Picture) -> float | None:
    if not picture.people or not picture.people[0].spools:
        return None
    seen = np.stack([person.seen().found for person in picture.people]).any(axis=0)
    return float(seen.mean())


def _warnings(job: Job, picture: Picture, sound: Sound, length: int) -> list[str]:
    """What a user should know about a trial that is there all the same."""
    told = {"picture": picture.ending.warnings, "sound": sound.warnings}
    warnings = [f"{what}: {'; '.join(dict.fromkeys(words))}" for what, words in told.items() if words]
    frames = len(picture.time_s)
    if picture.ending.truncated:
        warnings.append(f"the picture ended in an error after {frames} frames")
    if not sound.present:
        warnings.append("no audio: its features are zero rows, all invalid")
    if _face_share(picture) == 0:
        warnings.append("no face in any frame: visual features are zero rows, all invalid")
    if abs(frames - length) > LENGTH_TOLERANCE_ROWS:
        warnings.append(f"{job.length} label rows but {frames} decoded frames")
    return warnings
