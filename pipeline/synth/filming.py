"""A planned clip's frames, painted one after the other, and what is heard in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .encode import Sound
from .face import HEAD_HALF_PX, Plane, Pose, landmarks, paint
from .planning import ClipPlan, TrialPlan
from .subjects import Subject
from .voice import RATE_HZ, speak


@dataclass(frozen=True)
class Shot:
    """One frame `pixels` uint8 [H, W, 3], and each person's five landmarks [5, 2] px, None where hidden."""

    pixels: NDArray[np.uint8]
    landmarks: tuple[NDArray[np.float64] | None, ...]


def film(clip: ClipPlan, picture: Plane) -> Iterator[Shot]:
    """Every frame of the clip, in order."""
    walls = _walls(clip)
    faces = [trial.script.face(clip.time_s) for trial in clip.trials]
    for row, time_s in enumerate(clip.time_s):
        frame = walls.copy()
        seen = [
            _draw(frame, picture, clip, place, faces[place][row], float(time_s), row) for place in range(len(faces))
        ]
        pixels = np.clip(np.rint(frame), 0, 255).astype(np.uint8)
        yield Shot(np.ascontiguousarray(pixels.transpose(1, 2, 0)), tuple(seen))


def record(clip: ClipPlan) -> Sound | None:
    """The first person's voice from where the sound begins to the clip's end; None for a silent film."""
    late_s = clip.recipe.audio_late_s
    if late_s is None:
        return None
    time_s = np.arange(round(clip.seconds * RATE_HZ)) / RATE_HZ
    speaker = clip.trials[0]
    rng = np.random.default_rng(clip.seed)
    samples = speak(speaker.subject, time_s, speaker.script.voice(time_s), rng)
    return Sound(samples[round(late_s * RATE_HZ) :], RATE_HZ, late_s)


def _draw(
    frame: Plane, picture: Plane, clip: ClipPlan, place: int, face: NDArray[np.float64], time_s: float, row: int
) -> NDArray[np.float64] | None:
    trial = clip.trials[place]
    if trial.hidden[row] and clip.recipe.hidden == "away":
        return None
    pose = trial.motion(time_s)
    half = frame[:, :, _side(clip, place)]
    inside = Pose(pose.x_px - _side(clip, place).start, pose.y_px, pose.angle_rad, pose.zoom)
    paint(half, picture, trial.subject, inside, face)
    if trial.hidden[row]:
        _hold_card(half, trial, inside)
        return None
    return landmarks(trial.subject, pose, face)


def _walls(clip: ClipPlan) -> Plane:
    """The wall behind each person, darker towards the floor."""
    width_px, height_px = clip.size_px
    frame = np.empty((3, height_px, width_px), np.float32)
    for place, trial in enumerate(clip.trials):
        frame[:, :, _side(clip, place)] = np.array(trial.subject.backdrop)[:, None, None]
    frame *= np.linspace(1.1, 0.85, height_px, dtype=np.float32)[:, None]
    return frame


def _side(clip: ClipPlan, place: int) -> slice:
    width_px = clip.size_px[0] // len(clip.trials)
    return slice(place * width_px, (place + 1) * width_px)


def _hold_card(frame: Plane, trial: TrialPlan, pose: Pose) -> None:
    """A plain card in front of the whole head."""
    columns, rows = _card(trial.subject, pose)
    frame[:, rows, columns] = (0.5 * np.array(trial.subject.backdrop) + 40)[:, None, None]


def _card(subject: Subject, pose: Pose) -> tuple[slice, slice]:
    half_x = HEAD_HALF_PX[0] * subject.scale * subject.stretch * pose.zoom
    half_y = HEAD_HALF_PX[1] * subject.scale * pose.zoom
    left, top = max(0, round(pose.x_px - half_x)), max(0, round(pose.y_px - half_y))
    return slice(left, round(pose.x_px + half_x)), slice(top, round(pose.y_px + half_y))
