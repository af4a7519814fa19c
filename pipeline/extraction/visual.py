"""The picture: the frames' times, which are every stream's, and the faces, embedded and kept on disk row by row.

Tested by tests/pipeline/extraction: test_extract.py, test_adding.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...encoders.table import CROP_PX
from ...encoders.views import VIEWS
from ...features_store.entries import CLOCK, FACES
from ...features_store.schema import JsonValue, MissingFace, RowSource
from ...shell.text import counted
from ..config import FacePolicy
from ..faces.crops import FaceCrops, aligned_crops, follow_faces, known_faces, unseen
from ..faces.tracking import Followers
from ..media.readers import FrameReader, prefetch
from ..media.types import Ending, FrameBatch, VideoInfo
from .assemble import PersonRows, person_arrays
from .jobs import Job
from .provenance import crops_digest
from .row_buffer import PendingRows, RowBuffer, settled
from .session import Session
from .stored import checked_times
from .streams import Clock, Reading

_PROBLEMS_NAMED = 5
_FRAMES_AT_ONCE = 32
_WAITING_BYTES = 64 << 20  # of one feature's views on their way through its network


@dataclass(frozen=True)
class Picture:
    """What the frames gave: the clock, the people in them, and what the decoder and the crops had to say."""

    clock: Clock
    people: list[PersonRows]
    said: tuple[str, ...]
    job: Job
    missing: MissingFace

    @property
    def makes_track(self) -> bool:
        """Whether boxes and landmarks are written beside the features."""
        return bool(self.people[0].buffers) and not self.job.keeps_track

    def share(self) -> float | None:
        """Share of the frames with a face; None where no visual feature was asked for."""
        if not self.people[0].buffers:
            return None
        return float(np.stack([person.seen().found for person in self.people]).any(axis=0).mean())

    def arrays(self, length: int) -> list[dict[str, RowSource]]:
        """Features and face track of each person, [length, ...]; a trial that keeps its track gets no other."""
        frames = len(self.clock.time_s)
        return [person_arrays(each, frames, length, self.missing, self.makes_track) for each in self.people]

    def attributes(self) -> dict[str, JsonValue]:
        """Which face was followed, and through which crops."""
        if not self.makes_track:
            return {}
        crops: dict[str, JsonValue] = {} if self.job.crops is None else {"crops": crops_digest(self.job.crops)}
        return {"face": self.job.face, **crops}

    def files(self) -> dict[str, JsonValue]:
        """None: all is in the video."""
        return {}

    def sources(self) -> tuple[str, ...]:
        """The clock, unless the trial has it, and the face track where one is made."""
        return (*(() if self.job.adds else (CLOCK,)), *((FACES,) if self.makes_track else ()))

    def remarks(self) -> list[str]:
        """A picture that breaks off, crops that are not there, nobody to be seen."""
        found = []
        if self.clock.truncated:
            found.append(f"the picture ended in an error after {counted(self.clock.frames, 'frame')}")
        if self.people[0].buffers and self.job.crops is not None and not self.job.crops.is_dir():
            found.append(f"there is no folder of aligned crops {self.job.crops}")
        if self.share() == 0:
            found.append("no face in any frame: visual features are zero rows, all invalid")
        return found


def read_picture(reading: Reading, features: Sequence[str]) -> Picture:
    """Frame times, and these features of each person's face in each frame.

    Of a `stored` trial the times are known, and the faces where the job keeps its track: frames are decoded where
    faces are to be cut out of them, and must lie where they lay. Raises MediaError where nothing decodes, or where
    they do not.
    """
    info, job, session, stored = reading.info, reading.job, reading.session, reading.stored
    times: list[NDArray[np.float64]] = []
    problems: list[str] = []
    people = _People(features, session, reading.scratch)
    with_pixels = bool(features) and job.crops is None
    with ExitStack() as stack:
        stack.enter_context(settled(people.pending))
        reader = None
        batches: Iterable[FrameBatch]
        if stored is not None and not with_pixels:
            batches = _without_pixels(stored.time_s)
        else:
            reader = stack.enter_context(FrameReader(info, pixels=with_pixels, stall_timeout_s=session.stall_timeout_s))
            batches = stack.enter_context(closing(prefetch(reader, reader.kill)))
            batches = batches if stored is None else checked_times(batches, stored, info, job)

        def noted() -> Iterator[FrameBatch]:
            decoded = 0
            for batch in batches:
                times.append(batch.time_s)
                decoded += len(batch.time_s)
                # Frames are decoded ahead: what counts is how many are embedded, and about when the last of these is.
                embedded = people.embedded()
                reading.progress(embedded, float(batch.time_s[-1]) * embedded / decoded, info.duration_s)
                yield batch

        if not with_pixels:
            given = job if features else replace(job, crops=None)
            groups = _given_faces(noted(), given, problems, people.sides_px)
        elif stored is not None and job.keeps_track:
            groups = known_faces(noted(), stored.tracks, people.sides_px)
        else:
            groups = detected_faces(noted(), info, job.face, session, people.sides_px)
        for group in groups:
            people.take(group)
    time_s = np.concatenate(times)
    reading.progress(len(time_s), float(time_s[-1]), info.duration_s)
    ending = Ending(truncated=False, warnings=()) if reader is None else reader.ending
    more = len(problems) - _PROBLEMS_NAMED
    named = [*problems[:_PROBLEMS_NAMED], *([f"and {counted(more, 'more crop')}"] if more > 0 else [])]
    if stored is not None:
        clock = Clock(stored.time_s, stored.frames, stored.rows, ending.truncated)
    else:
        rows = len(time_s) if job.length is None else job.length
        clock = Clock(time_s, len(time_s), rows, ending.truncated)
    return Picture(clock, people.rows, (*ending.warnings, *named), job, session.config.missing_face)


class _People:
    """The people of a video: where they were seen, and their embeddings on the way to the buffers."""

    def __init__(self, features: Sequence[str], session: Session, scratch: Path) -> None:
        of_network = {name: session.networks.embedders[name].input_px for name in features if name not in VIEWS}
        self._side_px = {name: of_network.get(name, CROP_PX) for name in features}
        self.sides_px = tuple(dict.fromkeys(self._side_px.values())) or (CROP_PX,)
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
            buffers = {}
            for name in self._side_px:
                path = self._scratch / f"{name}-{len(self.rows)}.rows"
                buffers[name] = RowBuffer(path, *self._session.row_of(name))
            self.rows.append(PersonRows(buffers, [unseen(self._frames)]))
            networks = {}
            for name, buffer in buffers.items():
                if name not in VIEWS:
                    bytes_a_view = 3 * self._side_px[name] ** 2
                    networks[name] = PendingRows(buffer, min(16, max(2, _WAITING_BYTES // (16 * bytes_a_view))))
            self._pending_of.append(networks)
            self.pending.extend(self._pending_of[-1].values())
        for person, pending, crops in zip(self.rows, self._pending_of, group, strict=True):
            person.parts.append(crops.seen)
            for name, buffer in person.buffers.items():
                if name in VIEWS:
                    buffer.append(VIEWS[name](crops.views[CROP_PX]))
            for name, each in pending.items():
                each.expect(self._session.networks.engine.submit(name, crops.views[self._side_px[name]]))
        self._frames += len(group[0].seen.scores)
        self._on_the_way.append((self._frames, [(each, each.asked) for each in self.pending]))

    def embedded(self) -> int:
        """Frames from the first on whose rows have all arrived."""
        while self._on_the_way and all(each.arrived >= asked for each, asked in self._on_the_way[0][1]):
            self._embedded, _ = self._on_the_way.popleft()
        return self._embedded


def detected_faces(
    batches: Iterable[FrameBatch],
    info: VideoInfo,
    face: FacePolicy,
    session: Session,
    sides_px: Sequence[int] = (CROP_PX,),
) -> Iterator[list[FaceCrops]]:
    """Crops of each followed person, batch by batch. Raises ValueError where no detector was wanted."""
    from ..faces.search import FaceSearch  # noqa: PLC0415 - torch only where it is used

    if session.loaded is None or session.networks.detector is None:
        raise ValueError("visual features without aligned crops need a face detector")
    followers = Followers(face, (info.width_px, info.height_px))
    search = FaceSearch(session.networks.detector, followers, session.config.detect_every)
    return follow_faces(batches, search, sides_px)


def _without_pixels(time_s: NDArray[np.float64]) -> Iterator[FrameBatch]:
    """Frames whose times are known, and whose pictures nobody needs."""
    for first in range(0, len(time_s), _FRAMES_AT_ONCE):
        part = time_s[first : first + _FRAMES_AT_ONCE]
        yield FrameBatch(np.zeros((len(part), 0, 0, 3), np.uint8), part)


def _given_faces(
    batches: Iterable[FrameBatch], job: Job, problems: list[str], sides_px: Sequence[int]
) -> Iterator[list[FaceCrops]]:
    """The organiser's crops of the decoded frames; without a crops folder there is nobody to look at."""
    first = 0
    for batch in batches:
        frames = len(batch.time_s)
        if job.crops is None:
            yield [FaceCrops.of([], sides_px, unseen(frames))]
        else:
            crops, wrong = aligned_crops(job.crops, first, frames, sides_px)
            problems.extend(wrong)
            yield [crops]
        first += frames
