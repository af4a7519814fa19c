"""From a seed to everything that is planted: who is seen when, who hides, which rows are masked. Paints nothing.

    seed ─┬─ [seed, 1, clip] ──► scripts, head motion, hidden frames, masked rows
          └─ [seed, 2, person] ► subject

Tested by tests/pipeline/synth/test_synth.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .face import Pose
from .law import Law, Script, Signal, draw_signal, partner, plant
from .recipes import MIN_TRIALS, Recipe, Subject, draw_subject, recipes

FRAME_PX = (320, 240)
PAIR_PX = (480, 240)
_MOTION_BAND_HZ = (0.05, 0.35)
# A VFR clip's frame N lies at N/fps + slow · sin(w N) + quick · sin(2.1 N): steps of 26 to 64 ms at 22 fps.
SLOW_S, SLOW_RAD, QUICK_S, QUICK_RAD = 0.115, 0.105, 0.004, 2.1
_CLIPS, _PEOPLE = 1, 2


@dataclass(frozen=True)
class SynthConfig:
    """What a corpus is made from: `trials`, each of `seconds`, a `seed`, and the voice's lead over the face.

    Raises ValueError on values out of range.
    """

    trials: int = 12
    seconds: float = 8.0
    seed: int = 0
    lag_s: float = 0.3

    def __post_init__(self) -> None:
        if self.trials < MIN_TRIALS:
            raise ValueError(f"a corpus with every special clip has {MIN_TRIALS} trials or more, got {self.trials}")
        if not 1.0 <= self.seconds <= 600.0:
            raise ValueError(f"a clip lasts 1 to 600 s, got {self.seconds}")
        if self.seed < 0:
            raise ValueError(f"a seed is 0 or more, got {self.seed}")
        if not 0.0 <= self.lag_s <= 2.0:
            raise ValueError(f"the voice leads by 0 to 2 s, got {self.lag_s}")


@dataclass(frozen=True)
class Motion:
    """Slow head motion around a point of the frame, independent of the labels; `signals`: right, down, turn, zoom."""

    middle_px: tuple[float, float]
    signals: tuple[Signal, ...]

    def __call__(self, time_s: float) -> Pose:
        """Where the head is at a time."""
        right, down, turn, near = (float(signal(np.array(time_s))) for signal in self.signals)
        x_px, y_px = self.middle_px
        return Pose(x_px + 5 * right, y_px + 3 * down, 0.03 * turn, 1 + 0.02 * near)


@dataclass(frozen=True)
class TrialPlan:
    """One person in one clip of T frames; `hidden`, `masked` bool [T]: no face to see, −5 in the labels."""

    name: str
    subject: Subject
    script: Script
    motion: Motion
    hidden: NDArray[np.bool_]
    masked: NDArray[np.bool_]


@dataclass(frozen=True)
class ClipPlan:
    """One video: its recipe, the frames' times [T] in s, its length, its people, the seed of its sound."""

    recipe: Recipe
    time_s: NDArray[np.float64]
    seconds: float
    size_px: tuple[int, int]
    trials: tuple[TrialPlan, ...]
    seed: tuple[int, ...]


def plan_corpus(config: SynthConfig) -> list[ClipPlan]:
    """Every clip of the corpus. The same settings give the same plan."""
    chosen = recipes(config.trials)
    names = [recipe.subject if not recipe.pair else name for recipe in chosen for name in recipe.trials]
    people = {name: number for number, name in enumerate(dict.fromkeys(names))}
    clips = []
    for number, recipe in enumerate(chosen):
        rng = np.random.default_rng([config.seed, _CLIPS, number])
        time_s = frame_times_s(recipe, config.seconds)
        size_px = PAIR_PX if recipe.pair else FRAME_PX
        scripts = [plant(rng, Law(lag_s=config.lag_s))]
        scripts += [partner(scripts[0], rng) for _ in recipe.trials[1:]]
        trials = []
        for place, (name, script) in enumerate(zip(recipe.trials, scripts, strict=True)):
            person = people[name if recipe.pair else recipe.subject]
            subject = draw_subject(person, np.random.default_rng([config.seed, _PEOPLE, person]))
            middle_px = (size_px[0] * (2 * place + 1) / (2 * len(scripts)), 0.47 * size_px[1])
            motion = Motion(middle_px, tuple(draw_signal(rng, _MOTION_BAND_HZ) for _ in range(4)))
            hidden = _stretch(rng, time_s, 0.1 if recipe.hidden else 0.0)
            masked = _stretch(rng, time_s, 0.05 if recipe.masked == "inside" else 0.0)
            if recipe.masked == "ends":
                masked[:2] = masked[-3:] = True
            trials.append(TrialPlan(name, subject, script, motion, hidden, masked))
        seed = (config.seed, _CLIPS, number, 1)
        clips.append(ClipPlan(recipe, time_s, config.seconds, size_px, tuple(trials), seed))
    return clips


def frame_times_s(recipe: Recipe, seconds: float) -> NDArray[np.float64]:
    """Times [T] of the frames that begin within `seconds`."""
    number = np.arange(int(np.ceil(seconds * float(recipe.fps))) + 8)
    time_s = number * float(1 / recipe.fps)
    if recipe.vfr:
        time_s = time_s + SLOW_S * np.sin(SLOW_RAD * number) + QUICK_S * np.sin(QUICK_RAD * number)
    return np.asarray(time_s[time_s < seconds - 1e-6])


def _stretch(rng: np.random.Generator, time_s: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """Marks at least two frames in a row between a fifth and four fifths of the clip; none, undrawn, for share 0."""
    if not share:
        return np.zeros(len(time_s), np.bool_)
    first = int(rng.uniform(0.2, 0.8 - share) * len(time_s))
    row = np.arange(len(time_s))
    return np.asarray((row >= first) & (row < first + max(2, round(share * len(time_s)))))
