"""One video as the plan has it, and what becomes of it: a receipt or a failure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...features_store.records.failures import Stage
from ...features_store.schema import JsonValue
from ..config import FacePolicy

# Called with each batch: the stream that is read, its rows so far, the time they have come to and the length, in s.
Progress = Callable[[str, int, float, float | None], None]


@dataclass(frozen=True)
class Job:
    """One trial to extract from one video.

    `name`: the video's path below the videos' folder; `length`: label rows of the trial, or None for as many as
    frames decode; `crops`: folder of the organiser's aligned crops, or None to detect faces; `sound`: a file in place
    of the video's own sound; `words`: file of words, or None; `features`: those to make, none: all of the run; `adds`:
    to a trial that is there, else it is made whole; `keeps_track`: with the boxes and landmarks that the store has.
    """

    video: Path
    name: str
    trial: str
    face: FacePolicy
    size_bytes: int
    length: int | None = None
    crops: Path | None = None
    sound: Path | None = None
    words: Path | None = None
    features: tuple[str, ...] = ()
    adds: bool = False
    keeps_track: bool = False


@dataclass(frozen=True)
class Receipt:
    """What one video became. `faces`: share of frames with a face, None where no visual feature was asked for."""

    trial: str
    video: str
    rows: int
    frames: int
    fps: str
    vfr: bool
    faces: float | None
    audio: bool
    truncated: bool
    seconds: float
    features: tuple[str, ...] = ()
    added: bool = False
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, JsonValue]:
        """The receipt for `--json`."""
        return {**vars(self), "features": list(self.features), "warnings": list(self.warnings)}


@dataclass(frozen=True)
class Failure:
    """Why one video gave nothing. `is_transient`: whether trying again may help; `features`: those it was to add."""

    video: str
    trial: str
    stage: Stage
    reason: str
    path: Path | None = None
    is_transient: bool = False
    features: tuple[str, ...] = ()

    def as_json(self) -> dict[str, JsonValue]:
        """The failure for `--json`."""
        return {"video": self.video, "trial": self.trial, "stage": self.stage, "reason": self.reason}
