"""Whether sound and picture fit each other: how dark the mouth is inside against how loud the voice is.

    crop ── inside of the mouth ── darkness ──┐             ▲ r         ╭╮
                                              ├ lag by lag  │      ╭╮  ╭╯╰╮        the best lag, and how far
    log-mel ── 450 to 1600 Hz ── level ───────┘             └──────╯╰──╯──╰──► s   the next best one lies below

An open mouth is dark, and vowels are what it is open for. Both are looked at less their mean over a second, so that
light, pose and distance do not count. How sure the best lag is, is counted in what chance makes of two signals that
move as slowly as these and have nothing to do with each other: docs/own-videos.md has the figures.
Tested by tests/apps/qc/test_sync.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...encoders.table import SMALL_CROP_PX

Column = NDArray[np.float64]

# Widest offset that is looked for. A wider search finds more by chance.
MOST_S = 0.5
_RATE_HZ = 50
_SLOW_S = 1.0  # what changes more slowly is light, pose, distance, how loud somebody speaks on the whole
_SMOOTH = np.hanning(11)[1:-1] / np.hanning(11)[1:-1].sum()  # 0.18 s: a syllable is longer
_NEAR_S = 0.1  # a row that is further away says nothing about a moment
_PEAK_S = 0.15  # half the width of a peak: what lies further off competes with it
_LEAST_S = 2.0
_SHORT = f"less than {_LEAST_S:g} s with a face and sound"
# What correlation and margin must come to, in standard deviations of chance, and the correlation by itself. Chosen so
# that less than 5 % of the pictures and sounds that do not belong together get there: benchmarks/sync_check.py.
LEAST_CONFIDENCE = 4.35
LEAST_R = 0.1
# Of a crop of 48 px: inside of the lips, between the eyes and the mouth.
_MOUTH, _CHEEKS = (slice(36, 46), slice(18, 30)), (slice(14, 32), slice(10, 38))
# Bands of the 64 of a log-mel frame: vowels. Frames whose mean is the level at a row's time.
VOWELS = slice(12, 32)
LEVEL_FRAMES = 5
_DARKEST = 10  # per cent of the pixels
_OFFSET = 0.01  # what a log-mel frame has been given before the logarithm


@dataclass(frozen=True)
class Offset:
    """By how much the sound is late, s (negative: early), and how sure that is.

    `correlation` in [−1, 1] at that offset; `margin`: how much less it is at the best one elsewhere; `seconds` that
    were compared; `chance`: standard deviation of the correlation of two such signals that do not belong together.
    """

    offset_s: float
    correlation: float
    margin: float
    seconds: float
    chance: float

    @property
    def confidence(self) -> float:
        """Correlation and margin together, in standard deviations of chance."""
        return (self.correlation + self.margin) / self.chance

    @property
    def verdict(self) -> Literal["sure", "not sure"]:
        """Whether the offset is one, by the figures of docs/own-videos.md."""
        is_sure = self.confidence >= LEAST_CONFIDENCE and self.correlation >= LEAST_R
        return "sure" if is_sure else "not sure"

    @property
    def late_s(self) -> float | None:
        """The offset, s; None where it is not sure."""
        return self.offset_s if self.verdict == "sure" else None

    @property
    def reason(self) -> str:
        """Why nothing was compared: something was."""
        return ""

    def in_words(self) -> str:
        """The offset and its confidence; the offset only where it is sure."""
        late = f"{self.offset_s:+z.2f} s, " if self.verdict == "sure" else ""
        confidence = f"confidence {self.confidence:.1f}, {LEAST_CONFIDENCE:g} is needed"
        return f"{late}{self.verdict} ({confidence}; {self.seconds:.0f} s compared)"


@dataclass(frozen=True)
class Incomparable:
    """There is nothing that could be compared, and `reason` says why."""

    reason: str
    late_s: None = None
    verdict: Literal["not sure"] = "not sure"

    def in_words(self) -> str:
        """The verdict and its reason."""
        return f"not sure ({self.reason})"


def darkness(crops: NDArray[np.uint8]) -> Column:
    """How dark the mouth is inside, against the cheeks: [N, 2], the mean and the darkest tenth.

    `crops` uint8 RGB [N, px, px, 3] on the ArcFace template, px a multiple of 48 or 112.
    """
    if crops.shape[1] != SMALL_CROP_PX:
        crops = _shrunk(crops)
    grey = crops.mean(axis=3)
    mouth, cheeks = grey[:, *_MOUTH], grey[:, *_CHEEKS].mean(axis=(1, 2))
    darkest = np.percentile(mouth.reshape(len(mouth), -1), _DARKEST, axis=1)
    return np.stack([cheeks - mouth.mean(axis=(1, 2)), -darkest / np.maximum(cheeks, 1.0)], axis=1)


def _shrunk(crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from PIL import Image  # noqa: PLC0415

    side = (SMALL_CROP_PX, SMALL_CROP_PX)
    small = [np.asarray(Image.fromarray(crop).resize(side, Image.Resampling.BILINEAR)) for crop in crops]
    return np.array(small, np.uint8).reshape(-1, *side, 3)


def vowel_level(frames: NDArray[np.floating]) -> Column:
    """How loud the vowels' bands are, natural logarithm: [N]. `frames` [N, F, 64] log-mel."""
    energy = np.exp(frames[:, :, VOWELS].astype(np.float64)) - _OFFSET
    level: Column = np.log(np.maximum(energy.mean(axis=(1, 2)), 0.0) + _OFFSET)
    return level


def find_offset(
    mouth_s: Column, mouth: Column, sound_s: Column, level: Column, heard: NDArray[np.bool_] | None = None
) -> Offset | Incomparable:
    """By how much the sound is late, unless less than two seconds can be compared, or nothing moves.

    `mouth` [N, K] at `mouth_s` [N] s, NaN without a face: the mean of the K correlations counts; `level` [M] at
    `sound_s` [M] s; `heard` bool [M]: where there is real sound.
    """
    seen = np.isfinite(mouth).all(axis=1)
    real = np.ones(len(level), np.bool_) if heard is None else heard
    if seen.sum() < 2 or real.sum() < 2:
        return Incomparable("no face" if seen.sum() < 2 else "no sound")
    first_s = max(mouth_s[seen][0], sound_s[real][0])
    last_s = min(mouth_s[seen][-1], sound_s[real][-1])
    grid_s = np.arange(first_s, last_s, 1 / _RATE_HZ)
    if len(grid_s) < _LEAST_S * _RATE_HZ:
        return Incomparable(_SHORT)
    with_mouth, with_sound = _near(grid_s, mouth_s[seen]), _near(grid_s, sound_s[real])
    voice = _quick(np.interp(grid_s, sound_s[real], level[real]), with_sound)
    moves = [_quick(np.interp(grid_s, mouth_s[seen], each[seen]), with_mouth) for each in mouth.T]
    seconds = float((with_mouth & with_sound).sum() / _RATE_HZ)
    if seconds < _LEAST_S:
        return Incomparable(_SHORT)
    if voice[with_sound].std() < 1e-6 or min(each[with_mouth].std() for each in moves) < 1e-6:
        return Incomparable("silence" if voice[with_sound].std() < 1e-6 else "a mouth that does not move")
    most = round(MOST_S * _RATE_HZ)
    lags = np.arange(-most, most + 1)
    curve = np.zeros(len(lags))
    for at, lag in enumerate(lags.tolist()):  # the sound of `lag` steps later than the mouth
        of_mouth, of_sound = (
            slice(max(0, -lag), len(voice) - max(0, lag)),
            slice(max(0, lag), len(voice) - max(0, -lag)),
        )
        both = with_mouth[of_mouth] & with_sound[of_sound]
        if both.sum() >= _RATE_HZ:
            heard_then = voice[of_sound][both]
            curve[at] = np.mean([_correlation(each[of_mouth][both], heard_then) for each in moves])
    best = int(curve.argmax())
    elsewhere = np.abs(lags - lags[best]) > _PEAK_S * _RATE_HZ
    margin = float(curve[best] - curve[elsewhere].max())
    chance = float(np.mean([_chance(each, voice, seconds) for each in moves]))
    return Offset(float(lags[best] / _RATE_HZ), float(curve[best]), margin, seconds, chance)


def _chance(one: Column, other: Column, seconds: float) -> float:
    """Standard deviation of the correlation of two unrelated signals that have the autocorrelations of these.

    The slower they move, the fewer independent moments there are. Source: docs/sources.md (Sound against picture).
    """
    together = 1.0
    for lag in range(1, min(round(1.2 * _SLOW_S * _RATE_HZ), len(one))):
        of_one, of_other = (float(each[lag:] @ each[:-lag] / (each @ each)) for each in (one, other))
        together += 2 * of_one * of_other
    return float(np.sqrt(max(together, 1.0) / (seconds * _RATE_HZ)))


def _near(grid_s: Column, times_s: Column) -> NDArray[np.bool_]:
    """Which moments of a grid are close to one of the times, which rise."""
    after = np.searchsorted(times_s, grid_s).clip(1, len(times_s) - 1)
    nearest_s = np.minimum(np.abs(grid_s - times_s[after - 1]), np.abs(grid_s - times_s[after]))
    return np.asarray(nearest_s <= _NEAR_S)


def _quick(values: Column, known: NDArray[np.bool_]) -> Column:
    """What is left of a signal without what changes slowly, a little smoothed; only what is `known` counts."""
    window = np.ones(round(_SLOW_S * _RATE_HZ) | 1)
    weights = known.astype(np.float64)
    slow = np.convolve(values * weights, window, "same") / np.maximum(np.convolve(weights, window, "same"), 1.0)
    return np.convolve((values - slow) * weights, _SMOOTH, "same")


def _correlation(one: Column, other: Column) -> float:
    one, other = one - one.mean(), other - other.mean()
    power = float(np.sqrt((one @ one) * (other @ other)))
    return float(one @ other) / power if power > 0 else 0.0
