"""The frames of one video: their times, and the faces in them, embedded and spooled row by row."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

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
from .row_buffer import PendingRows, RowBuffer
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
    detecting = bool(session.config.visual) and job.crops is None
    with (
        FrameReader(info, pixels=detecting, stall_timeout_s=session.stall_timeout_s) as reader,
        _People(session, scratch) as people,
        prefetch(reader, reader.kill) as batches,
    ):

        def tell(decoded: int, at_s: float) -> None:
            # Frames are decoded ahead: what is told is how many of them are embedded, and about when the last one is.
            embedded = people.embedded()
            progress("picture", embedded, at_s * embedded / decoded, info.duration_s)

        noted = _noting_times(batches, times, tell)
        for group in (
            detected_faces(noted, info, job.face, session) if detecting else _given_faces(noted, job, problems)
        ):
            people.take(group)
    time_s = np.concatenate(times)
    progress("picture", len(time_s), float(time_s[-1]), info.duration_s)
    ending = reader.ending
    more = len(problems) - _PROBLEMS_NAMED
    named = [*problems[:_PROBLEMS_NAMED], *([f"and {counted(more, 'more crop')}"] if more > 0 else [])]
    warnings = (*ending.warnings, *named)
    return Picture(time_s, people.rows, Ending(ending.truncated, warnings))


class _People:
    """The people of a video: where they were seen, and their embeddings on the way to the spools."""

    def __init__(self, session: Session, scratch: Path) -> None:
        self.rows: list[PersonRows] = []
        self._tools, self._scratch = session, scratch
        self._arrivals: list[dict[str, PendingRows]] = []
        self._frames = self._embedded = 0
        # Frames so far, and for each network's rows on their way how many parts must have arrived for them.
        self._on_the_way: deque[tuple[int, list[tuple[PendingRows, int]]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for arrivals in (each for person in self._arrivals for each in person.values()):
            if error is None:
                arrivals.settle()
            else:
                arrivals.drop()

    def take(self, group: list[FaceCrops]) -> None:
        """The next frames of everybody there is so far."""
        while len(self.rows) < len(group):
            self._add()
        for person, arrivals, crops in zip(self.rows, self._arrivals, group, strict=True):
            person.parts.append(crops.seen)
            for name, each in arrivals.items():
                each.expect(self._tools.networks.engine.submit(name, crops.pixels))
        self._frames += len(group[0].seen)
        self._on_the_way.append(
            (self._frames, [(each, each.asked) for person in self._arrivals for each in person.values()])
        )

    def embedded(self) -> int:
        """Frames from the first on whose rows have all arrived."""
        while self._on_the_way and all(each.arrived >= asked for each, asked in self._on_the_way[0][1]):
            self._embedded, _ = self._on_the_way.popleft()
        return self._embedded

    def _add(self) -> None:
        number = len(self.rows)
        dims = {name: self._tools.networks.embedders[name].dim for name in self._tools.config.visual}
        buffers = {name: RowBuffer(self._scratch / f"{name}-{number}.f32", (dim,)) for name, dim in dims.items()}
        self.rows.append(PersonRows(buffers, [unseen(self._frames)]))
        self._arrivals.append({name: PendingRows(buffer) for name, buffer in buffers.items()})


def detected_faces(
    batches: Iterable[FrameBatch], info: VideoInfo, face: FacePolicy, session: Session
) -> Iterator[list[FaceCrops]]:
    """Crops of each followed person, batch by batch. Raises ValueError where no detector was wanted."""
    from ..faces.search import FaceSearch  # noqa: PLC0415 - torch only where it is used

    if session.networks.detector is None:
        raise ValueError("visual features without aligned crops need a face detector")
    followers = Followers(face, (info.width_px, info.height_px))
    return follow_faces(batches, FaceSearch(session.networks.detector, followers, session.config.detect_every))


def _noting_times(
    batches: Iterable[FrameBatch],
    times: list[NDArray[np.float64]],
    progress: Callable[[int, float], None],
) -> Iterator[FrameBatch]:
    decoded = 0
    for batch in batches:
        times.append(batch.time_s)
        decoded += len(batch.time_s)
        progress(decoded, float(batch.time_s[-1]))
        yield batch


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
