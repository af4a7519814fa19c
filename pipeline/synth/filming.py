"""A planned clip: its frames, painted one after the other, and the voice of its first person.

The voice is a glottal pulse train through three formants, syllable by syllable: a sum of harmonics whose strengths
are read off a moving spectral envelope, exact at any rate and without filter states. Effort makes it louder, higher
and brighter; the vowel moves the formants from /u/ to /i/.
Tested by tests/pipeline/synth/test_synth.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .encode import Sound
from .face import HEAD_HALF_PX, Plane, landmarks, paint
from .planning import ClipPlan
from .recipes import Subject

RATE_HZ = 16_000
_TOP_HZ = 5_000.0
# Formants in Hz at rest, their shift a unit of vowel (log), and their widths
_FORMANTS_HZ = ((480.0, -0.18, 90.0), (1350.0, 0.23, 130.0), (2550.0, 0.08, 200.0))
_LOUDNESS = 0.42  # natural log of amplitude a unit of effort
_PITCH = 0.07
_SYLLABLES_HZ = 4.3
_BREATH = 0.004


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


def record(clip: ClipPlan) -> Sound | None:
    """The first person's voice from the start of the sound to the clip's end; None for a silent film."""
    late_s = clip.recipe.audio_late_s
    if late_s is None:
        return None
    time_s = np.arange(round(clip.seconds * RATE_HZ)) / RATE_HZ
    speaker = clip.trials[0]
    samples = speak(speaker.subject, time_s, speaker.script.voice(time_s), np.random.default_rng(clip.seed))
    return Sound(samples[round(late_s * RATE_HZ) :], RATE_HZ, late_s)


def speak(
    subject: Subject, time_s: NDArray[np.float64], voice: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Samples float32 [S] of ±1 at `time_s` (RATE_HZ apart) for (effort, vowel) `voice` [S, 2]."""
    effort, vowel = voice.T
    pitch_hz = subject.pitch_hz * np.exp(_PITCH * effort + 0.03 * np.sin(2 * np.pi * 2.7 * time_s + rng.uniform(0, 6)))
    turn_rad = 2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ
    total = np.zeros(len(time_s))
    for number in range(1, int(_TOP_HZ / pitch_hz.min()) + 1):
        hz = number * pitch_hz
        # Strength of the harmonic: the glottis's fall, times the formants' resonances.
        fall = (hz / 200.0) ** (-1.1 + 0.1 * effort)
        peaks = sum(
            1 / (1 + ((hz - middle_hz * subject.vocal_tract * np.exp(shift * vowel)) / width_hz) ** 2)
            for middle_hz, shift, width_hz in _FORMANTS_HZ
        )
        total += np.where(hz < _TOP_HZ, fall * (0.05 + peaks), 0.0) * np.sin(number * turn_rad)
    syllable_rad = 2 * np.pi * _SYLLABLES_HZ * time_s + 0.6 * np.sin(2 * np.pi * 0.7 * time_s + rng.uniform(0, 6))
    loudness = 0.25 * np.exp(_LOUDNESS * effort) * (0.65 + 0.35 * np.sin(syllable_rad))
    samples = loudness * total + _BREATH * loudness * rng.standard_normal(len(time_s))
    return np.asarray(np.tanh(samples), np.float32)
