"""The frames of one video: their times, and the faces in them, embedded and spooled row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import media
from .config import CROP_PX
from .faces import FaceCrops, aligned_crops, follow_faces, unseen
from .follow import Followers
from .jobs import Job, Progress
from .spool import Spool
from .toolbox import Toolbox
from .tracks import PersonRows

_PROBLEMS_NAMED = 5


@dataclass(frozen=True)
class Picture:
    """What the frames gave: their times, the people in them, and how decoding ended."""

    time_s: NDArray[np.float64]
    people: list[PersonRows]
    ending: media.Ending

    def face_share(self) -> float | None:
        """Share of the frames with a face; None where no visual feature was asked for."""
        if not self.people[0].spools:
            return None
        return float(np.stack([person.seen().found for person in self.people]).any(axis=0).mean())


def read_picture(info: media.VideoInfo, job: Job, tools: Toolbox, scratch: Path, progress: Progress) -> Picture:
    """Frame times, and the followed face of each person in each frame. Raises MediaError where nothing decodes."""
    times: list[NDArray[np.float64]] = []
    problems: list[str] = []
    people: list[PersonRows] = []
    detecting = bool(tools.config.visual) and job.crops is None
    with media.FrameReader(info, pixels=detecting, stall_timeout_s=tools.stall_timeout_s) as reader:
        batches = _noting_times(reader, times, lambda frames, at_s: progress("picture", frames, at_s, info.duration_s))
        groups = _detected_faces(batches, info, job, tools) if detecting else _given_faces(batches, job, problems)
        decoded = 0
        for group in groups:
            while len(people) < len(group):
                people.append(_new_person(scratch, len(people), decoded, tools))
            _embed(people, group, tools)
            decoded += len(group[0].seen)
    ending = reader.ending
    more = len(problems) - _PROBLEMS_NAMED
    named = [*problems[:_PROBLEMS_NAMED], *([f"and {more} more crops"] if more > 0 else [])]
    warnings = (*ending.warnings, *named)
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
