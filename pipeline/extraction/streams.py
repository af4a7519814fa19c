"""What a stream of a video is read with, and what it gives: the two sides of an entry of the table in `video.py`.

    Reading ─► Stream.read ─► StreamRows ─► arrays, attributes, sources and warnings of the trial

Tested by tests/pipeline/extraction: test_extract.py, test_audio.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...encoders.table import Stream as StreamName
from ...features_store.schema import JsonValue, RowSource
from ..media.types import VideoInfo
from .jobs import Job, Progress
from .session import Session
from .stored import StoredTrial


@dataclass(frozen=True)
class Clock:
    """Moments of the frames, `time_s` float64 [N] in s: all that decoded, or those of a stored trial that have rows.

    `frames`: how many decoded; `rows`: T of the trial, fewer or more where annotations say so; `truncated`: whether
    decoding ended in an error after them.
    """

    time_s: NDArray[np.float64]
    frames: int
    rows: int
    truncated: bool = False

    @property
    def row_time_s(self) -> NDArray[np.float64]:
        """Those of the frames that have rows: [min(N, T)]."""
        return self.time_s[: self.rows]


@dataclass(frozen=True)
class Reading:
    """One video that is being read; `clock`: of the streams read so far; `stored`: what features are added to."""

    info: VideoInfo
    job: Job
    session: Session
    scratch: Path
    report: Progress
    stored: StoredTrial | None
    clock: Clock = Clock(np.zeros(0), 0, 0)
    stream: str = ""

    def progress(self, rows: int, time_s: float, duration_s: float | None) -> None:
        """Say how far the stream is. Raises what ends a video that may not go on."""
        self.report(self.stream, rows, time_s, duration_s)


class StreamRows(Protocol):
    """What a stream gave: rows on disk, until the trial is written."""

    @property
    def clock(self) -> Clock | None:
        """The frames, from the stream that has them; None from the others."""

    @property
    def said(self) -> Sequence[str]:
        """Warnings of the decoder."""

    def share(self) -> float | None:
        """Share of the frames that gave the features something; None where none was asked for."""

    def arrays(self, length: int) -> list[dict[str, RowSource]]:
        """Arrays [length, ...] by name for each person in the video; one for all where they do not differ."""

    def attributes(self) -> dict[str, JsonValue]:
        """What the trial says of the stream."""

    def files(self) -> dict[str, JsonValue]:
        """What the entries of its features say of the files, beside the video, that they were made from."""

    def sources(self) -> tuple[str, ...]:
        """Names of the entries that were made beside those of the features."""

    def remarks(self) -> list[str]:
        """What a user should know of a trial that was extracted all the same."""


@dataclass(frozen=True)
class Stream:
    """An entry of the table: whose features these are, its word in progress lines and warnings, and how it is read.

    `read` gets the features that are wanted, perhaps none. It raises MediaError, whose stage is that of the failure,
    where the trial cannot be made; what a trial can do without it gives as absent, with a warning.
    """

    name: StreamName
    word: str
    read: Callable[[Reading, Sequence[str]], StreamRows]
