"""What there is to measure in a trial: faces, gaps, silence, lengths, and sound against picture; in slices of rows.

    faces     share of the frames with a face              of `face_score`
    gap       longest time without one, s
    silence   share of the frames without any sound        of `logmel`, else of the video
    length    label rows less frames
    sync      by how much the sound is late, s             of crops and `logmel`, else of the video

Whatever is odd in a trial is said of it: what can be measured is, and no trial keeps another from being measured.

Tested by tests/apps/qc/test_qc.py and test_odd.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...features_store.clock import usual_step_s
from ...features_store.entries import FACE_ARRAYS
from ...features_store.schema import FACE_SCORE, StoreMismatch
from ...features_store.trial import Trial
from ...pipeline.media.probe import probe
from ...pipeline.media.streams import Choice
from ...pipeline.media.types import MediaError, VideoInfo
from ...pipeline.runs.discover import find_video, why_other_file
from ...shell.text import one_line
from .mouth_and_voice import crops_of, has_own_sound, has_sound, holds_sound, sound_of, sync_of, times_of
from .sync import Column, Incomparable, Offset


@dataclass(frozen=True)
class Measured:
    """A trial in numbers; None where neither the store nor a video says it, or where it cannot be read.

    `faces`: the share of its frames with a face, `silence`: of its rows with nothing to be heard; both in [0, 1].
    `sync`: None where it was not checked; `unreadable`: what cannot be read in the store, and why; `notes`: what else
    is odd.
    """

    trial: str
    frames: int
    seconds: float | None = None
    faces: float | None = None
    gap_s: float | None = None
    silence: float | None = None
    length_difference: int | None = None
    sync: Offset | Incomparable | None = None
    unreadable: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The measures for `--json`."""
        sync: dict[str, Any] = {"verdict": "not checked" if self.sync is None else self.sync.verdict}
        if isinstance(self.sync, Offset):
            numbers = {**vars(self.sync), "confidence": self.sync.confidence}
            sync |= {name: round(value, 4) for name, value in numbers.items()}
        elif self.sync is not None:
            sync["reason"] = self.sync.reason
        more = {"sync": sync, "checked_sync": self.sync is not None, "notes": list(self.notes)}
        return {**vars(self), "unreadable": dict(self.unreadable), **more}


def measure(
    trial: Trial,
    videos: Mapping[str, Sequence[Path]] | None,
    with_sync: bool = True,
    stall_timeout_s: float = 60.0,
) -> Measured:
    """Measure a trial of a store; its video is decoded for what the store does not hold, if it is there.

    `videos`: those of `videos_by_name`, None where nobody has named a folder. Where sound was given beside it
    (`extract --audio`), its own is left alone. Nothing of a trial ends it: arrays that are missing or
    broken, or a video that cannot be read, are said.
    """
    attributes, rows = trial.attributes, trial.rows
    frames = attributes.get("frames_decoded")
    frames, counts_frames = (frames, True) if isinstance(frames, int) else (rows, False)
    unreadable, notes = dict[str, str](), list[str]()
    found: dict[str, Any] = {"length_difference": rows - frames if counts_frames else None}
    if not has_sound(trial):
        found["silence"] = 1.0
    time_s: Column | None = None
    with _noted(unreadable, "times"):
        time_s = times_of(trial)
    if time_s is None or not rows:
        notes += [] if rows else ["it has no frames"]
        return Measured(trial.name, frames, **found, unreadable=unreadable, notes=tuple(notes))
    step_s = usual_step_s(time_s)
    found["seconds"] = float(time_s[-1] - time_s[0]) + step_s
    with _noted(unreadable, "faces"):
        if FACE_SCORE in trial:
            seen = trial.read(FACE_SCORE)[: min(frames, rows)] > 0
            found["faces"] = float(seen.mean()) if len(seen) else 0.0
            found["gap_s"] = longest_gap_s(time_s[: len(seen)], seen, step_s)

    info = None
    wants_sound = has_sound(trial) and not holds_sound(trial) and has_own_sound(trial)
    wants_mouth = with_sync and has_sound(trial) and holds_sound(trial) and crops_of(trial) is None
    if videos is not None and (wants_sound or (wants_mouth and all(name in trial for name in FACE_ARRAYS))):
        info, why = _video(trial, videos, stall_timeout_s)
        notes += [why] if why else []
    sound, whole = None, [(0, rows)]
    with _noted(unreadable, "sound"), _media_noted(notes):
        sound = sound_of(trial, info, whole, stall_timeout_s)
    if sound is not None and has_sound(trial):
        found["silence"] = float((sound.silent | ~sound.real).mean())
    with _noted(unreadable, "mouths"), _media_noted(notes):
        if with_sync:
            found["sync"] = sync_of(trial, info, whole, sound, notes, stall_timeout_s)
    return Measured(trial.name, frames, **found, unreadable=unreadable, notes=tuple(notes))


# What a damaged store raises where a trial is read.
UNREADABLE = (StoreMismatch, KeyError, IndexError, OSError)


@contextmanager
def _noted(unreadable: dict[str, str], what: str) -> Iterator[None]:
    """What cannot be read in the store is written down, and what comes after it goes on."""
    try:
        yield
    except UNREADABLE as error:
        unreadable.setdefault(what, one_line(error))


@contextmanager
def _media_noted(notes: list[str]) -> Iterator[None]:
    try:
        yield
    except MediaError as error:
        notes.append(f"its video cannot be used: {error.words}")


def longest_gap_s(time_s: Column, found: NDArray[np.bool_], step_s: float) -> float:
    """The longest time without a face, from the first frame without one to the next with one, or to the end; s.

    `time_s` [T] of the frames, `found` bool [T]: which have a face; `step_s`: how long the last one is shown.
    """
    if not len(found) or found.all():
        return 0.0
    edges = np.flatnonzero(np.diff((~found).astype(np.int8), prepend=0, append=0))
    ends_s = np.append(time_s, time_s[-1] + step_s)
    return float((ends_s[edges[1::2]] - ends_s[edges[::2]]).max())


def _video(trial: Trial, videos: Mapping[str, Sequence[Path]], stall_timeout_s: float) -> tuple[VideoInfo | None, str]:
    """The video of a trial as it is now; or why there is none that can be used."""
    path = find_video(trial.name, trial.attributes, videos)
    if path is None:
        return None, "there is no video of this name in --videos"
    try:
        if why := why_other_file(path, trial.attributes):
            return None, why
        return probe(path, Choice.recorded(trial.attributes), stall_timeout_s=stall_timeout_s), ""
    except (MediaError, OSError) as error:
        return None, f"its video cannot be used: {error.words if isinstance(error, MediaError) else one_line(error)}"
