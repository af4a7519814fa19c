"""The planted law: what face and voice show of valence and arousal, and what only both together show.

    own valence v ──────────────► face: mouth                       valence = tanh(V · v + J · j + offset)
    own arousal a ──────────────────────────► voice: effort         arousal = tanh(A · a − J · j + offset)
    joint j ──► (j + N · n) ────► face: brow
    noise n ──┴─ n(t + lag) ────────────────► voice: vowel

The brow shows j, but drowned in noise n that is N times larger. The vowel shows n alone, `lag_s` ahead of the
face: it says nothing of j, nor does it sound like what is seen at the same moment. Only by subtracting the vowel
of lag_s ago from the brow of now is j found. No video is involved: features can be planted as well as clips.

Every signal is a sum of sines, one in each slice of its band, so it can be asked for at any time (irregular
frame times, audio rate) and has mean 0 and variance 1 over a few periods.
Tested by tests/pipeline/synth/test_law.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]
_NUM_SINES = 4


@dataclass(frozen=True)
class Law:
    """The coefficients, shared by all clips of a corpus; bands are (low, high) in Hz.

    `own` (V and A), `joint` (J) and `noise` (N) multiply signals of variance 1, as above; `offset_std` is the spread of
    the clips' offsets. The bands of the voice end where a patch of 0.96 s can still follow; the face may be faster.
    """

    lag_s: float = 0.3
    own: float = 0.36
    joint: float = 0.36
    noise: float = 2.2
    offset_std: float = 0.03
    own_valence_band_hz: tuple[float, float] = (0.10, 0.90)
    own_arousal_band_hz: tuple[float, float] = (0.10, 0.50)
    joint_band_hz: tuple[float, float] = (0.15, 0.90)
    noise_band_hz: tuple[float, float] = (0.10, 0.40)

    @property
    def face_alone(self) -> float:
        """Correlation of the brow with the joint part: 1 / √(1 + N²)."""
        return float(1 / np.hypot(1.0, self.noise))


@dataclass(frozen=True)
class Signal:
    """A sum of sines of variance 1: `frequency_hz`, `phase_rad` [K]."""

    frequency_hz: tuple[float, ...]
    phase_rad: tuple[float, ...]

    def __call__(self, time_s: Times) -> Times:
        """Values at any times, of the shape of `time_s`."""
        pairs = zip(self.frequency_hz, self.phase_rad, strict=True)
        total = sum((np.sin(2 * np.pi * hz * time_s + phase) for hz, phase in pairs), np.zeros_like(time_s))
        return np.asarray(total * np.sqrt(2 / len(self.frequency_hz)))


@dataclass(frozen=True)
class Truth:
    """The labels at T times and their parts, each float64 [T]; label = tanh(own + joint + the clip's offset)."""

    time_s: Times
    valence: Times
    arousal: Times
    own_valence: Times
    joint_valence: Times
    own_arousal: Times
    joint_arousal: Times


@dataclass(frozen=True)
class Script:
    """What one person does in one clip; every method takes times in s on the clip's clock."""

    law: Law
    own_valence: Signal
    own_arousal: Signal
    joint: Signal
    noise: Signal
    offsets: tuple[float, float] = (0.0, 0.0)

    def face(self, time_s: Times) -> Times:
        """Mouth and brow [T, 2], each of variance 1."""
        brow = (self.joint(time_s) + self.law.noise * self.noise(time_s)) * self.law.face_alone
        return np.stack([self.own_valence(time_s), brow], axis=-1)

    def voice(self, time_s: Times) -> Times:
        """Effort and vowel [T, 2], each of variance 1; the vowel is ahead of the brow by the lag."""
        return np.stack([self.own_arousal(time_s), self.noise(time_s + self.law.lag_s)], axis=-1)

    def truth(self, time_s: Times) -> Truth:
        """Labels and their parts, with nothing masked."""
        law, shared = self.law, self.joint(time_s)
        own = law.own * self.own_valence(time_s), law.own * self.own_arousal(time_s)
        joint = law.joint * shared, -law.joint * shared
        valence, arousal = (np.tanh(own[of] + joint[of] + self.offsets[of]) for of in (0, 1))
        return Truth(time_s, valence, arousal, own[0], joint[0], own[1], joint[1])


def plant(rng: np.random.Generator, law: Law | None = None) -> Script:
    """Draw the signals of one clip. The same state of `rng` gives the same script."""
    law = law or Law()
    return Script(
        law,
        own_valence=draw_signal(rng, law.own_valence_band_hz),
        own_arousal=draw_signal(rng, law.own_arousal_band_hz),
        joint=draw_signal(rng, law.joint_band_hz),
        noise=draw_signal(rng, law.noise_band_hz),
        offsets=(float(law.offset_std * rng.standard_normal()), float(law.offset_std * rng.standard_normal())),
    )


def partner(script: Script, rng: np.random.Generator) -> Script:
    """Another face beside the first, in the same sound: the voice's signals stay, the face's own are new."""
    fresh = plant(rng, script.law)
    return replace(fresh, own_arousal=script.own_arousal, noise=script.noise)


def draw_signal(rng: np.random.Generator, band_hz: tuple[float, float]) -> Signal:
    """Sines of random phases, one in each quarter of the band."""
    low_hz, high_hz = band_hz
    slices = (np.arange(_NUM_SINES) + rng.uniform(size=_NUM_SINES)) / _NUM_SINES
    frequency_hz = low_hz + (high_hz - low_hz) * slices
    return Signal(tuple(map(float, frequency_hz)), tuple(map(float, rng.uniform(0, 2 * np.pi, _NUM_SINES))))
