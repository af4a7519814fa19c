"""The frames of one video: their times, and the faces in them, embedded and kept on disk row by row."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...encoders.table import CROP_PX
from ...shell.text import counted
from ..config import FacePolicy
from ..faces.crops import FaceCrops, aligned_crops, follow_faces, unseen
from ..faces.tracking import Followers
from ..media.readers import FrameReader, prefetch
from ..media.types import Ending, FrameBatch, VideoInfo
from .assemble import PersonRows
from .jobs import Job, Progress
from .row_buffer import PendingRows, RowBuffer, settled
from .session import Session

_PROBLEMS_NAMED = 5


@dataclass(frozen=True)
class Picture:
    """What the frames gave: their times, the people in them, and how decoding ended."""

    time_s: NDArray[np.float64]
    people: list[PersonRows]
    ending: Ending

    def face_share(self) -> float | None:
        """Share of the frames with a face; None where no visual feature was asked for."""
        if not self.people[0].buffers:
            return None
        return float(np.stack([person.seen().found for person in self.people]).any(axis=0).mean())


def read_picture(info: VideoInfo, job: Job, session: Session, scratch: Path, progress: Progress) -> Picture:
    """Frame times, and the followed face of each person in each frame. Raises MediaError where nothing decodes."""
    times: list[NDArray[np.float64]] = []
    problems: list[str] = []
    people = _People(session, scratch)
    detecting = bool(session.config.visual) and job.crops is None
    with (
        FrameReader(info, pixels=detecting, stall_timeout_s=session.stall_timeout_s) as reader,
        settled(people.pending),
        closing(prefetch(reader, reader.kill)) as batches,
    ):

        def noted() -> Iterator[FrameBatch]:
            decoded = 0
            for batch in batches:
                times.append(batch.time_s)
                decoded += len(batch.time_s)
                # Frames are decoded ahead: what counts is how many are embedded, and about when the last of these is.
                embedded = people.embedded()
                progress("picture", embedded, float(batch.time_s[-1]) * embedded / decoded, info.duration_s)
                yield batch

        for group in (
            detected_faces(noted(), info, job.face, session) if detecting else _given_faces(noted(), job, problems)
        ):
            people.take(group)
    time_s = np.concatenate(times)
    progress("picture", len(time_s), float(time_s[-1]), info.duration_s)
    ending = reader.ending
    more = len(problems) - _PROBLEMS_NAMED
    named = [*problems[:_PROBLEMS_NAMED], *([f"and {counted(more, 'more crop')}"] if more > 0 else [])]
    return Picture(time_s, people.rows, Ending(ending.truncated, (*ending.warnings, *named)))


class _People:
    """The people of a video: where they were seen, and their embeddings on the way to the buffers."""

    def __init__(self, session: Session, scratch: Path) -> None:
        self.rows: list[PersonRows] = []
        self.pending: list[PendingRows] = []  # of all features of everybody
        self._session, self._scratch = session, scratch
        self._pending_of: list[dict[str, PendingRows]] = []  # the same by person and feature
        self._frames = self._embedded = 0
        # Frames so far, and how many parts of each feature's rows must have arrived for them.
        self._on_the_way: deque[tuple[int, list[tuple[PendingRows, int]]]] = deque()

    def take(self, group: list[FaceCrops]) -> None:
        """The next frames of everybody there is so far."""
        while len(self.rows) < len(group):
            number, visual = len(self.rows), self._session.config.visual
            dims = {name: self._session.networks.embedders[name].dim for name in visual}
            buffers = {name: RowBuffer(self._scratch / f"{name}-{number}.f32", (dim,)) for name, dim in dims.items()}
            self.rows.append(PersonRows(buffers, [unseen(self._frames)]))
            self._pending_of.append({name: PendingRows(buffer) for name, buffer in buffers.items()})
            self.pending.extend(self._pending_of[-1].values())
        for person, pending, crops in zip(self.rows, self._pending_of, group, strict=True):
            person.parts.append(crops.seen)
            for name, each in pending.items():
                each.expect(self._session.networks.engine.submit(name, crops.pixels))
        self._frames += len(group[0].seen.scores)
        self._on_the_way.append((self._frames, [(each, each.asked) for each in self.pending]))

    def embedded(self) -> int:
        """Frames from the first on whose rows have all arrived."""
        while self._on_the_way and all(each.arrived >= asked for each, asked in self._on_the_way[0][1]):
            self._embedded, _ = self._on_the_way.popleft()
        return self._embedded


def detected_faces(
    batches: Iterable[FrameBatch], info: VideoInfo, face: FacePolicy, session: Session
) -> Iterator[list[FaceCrops]]:
    """Crops of each followed person, batch by batch. Raises ValueError where no detector was wanted."""
    from ..faces.search import FaceSearch  # noqa: PLC0415 - torch only where it is used

    if session.networks.detector is None:
        raise ValueError("visual features without aligned crops need a face detector")
    followers = Followers(face, (info.width_px, info.height_px))
    return follow_faces(batches, FaceSearch(session.networks.detector, followers, session.config.detect_every))


def _given_faces(batches: Iterable[FrameBatch], job: Job, problems: list[str]) -> Iterator[list[FaceCrops]]:
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
