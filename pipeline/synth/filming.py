"""A planned clip's frames, painted one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .face import HEAD_HALF_PX, Plane, landmarks, paint
from .planning import ClipPlan


@dataclass(frozen=True)
class Shot:
    """One frame `pixels` uint8 [H, W, 3], and each person's five landmarks [5, 2] px, None while hidden."""

    pixels: NDArray[np.uint8]
    landmarks: tuple[NDArray[np.float64] | None, ...]


def film(clip: ClipPlan, picture: Plane) -> Iterator[Shot]:
    """Every frame of the clip, in order. Each person has an upright strip of the frame."""
    width_px, height_px = clip.size_px
    strip_px = width_px // len(clip.trials)
    strips = [slice(place * strip_px, (place + 1) * strip_px) for place in range(len(clip.trials))]
    # The wall behind each person, darker towards the floor.
    walls: Plane = np.empty((3, height_px, width_px), np.float32)
    for trial, strip in zip(clip.trials, strips, strict=True):
        walls[:, :, strip] = np.array(trial.subject.backdrop)[:, None, None]
    walls *= np.linspace(1.1, 0.85, height_px, dtype=np.float32)[:, None]
    faces = [trial.script.face(clip.time_s) for trial in clip.trials]
    for row, time_s in enumerate(clip.time_s):
        frame = walls.copy()
        seen: list[NDArray[np.float64] | None] = []
        for trial, strip, face in zip(clip.trials, strips, faces, strict=True):
            if trial.hidden[row] and clip.recipe.hidden == "away":
                seen.append(None)
                continue
            pose, subject = trial.motion(float(time_s)), trial.subject
            part, within = frame[:, :, strip], replace(pose, x_px=pose.x_px - strip.start)
            paint(part, picture, subject, within, face[row])
            if trial.hidden[row]:
                # A plain card in front of the whole head.
                half_x = HEAD_HALF_PX[0] * subject.scale * subject.stretch * within.zoom
                half_y = HEAD_HALF_PX[1] * subject.scale * within.zoom
                left, top = max(0, round(within.x_px - half_x)), max(0, round(within.y_px - half_y))
                card = part[:, top : round(within.y_px + half_y), left : round(within.x_px + half_x)]
                card[:] = (0.5 * np.array(subject.backdrop) + 40)[:, None, None]
            seen.append(None if trial.hidden[row] else landmarks(subject, pose, face[row]))
        pixels = np.clip(np.rint(frame), 0, 255).astype(np.uint8)
        yield Shot(np.ascontiguousarray(pixels.transpose(1, 2, 0)), tuple(seen))
