"""The table of clips of the planted corpus (names, containers, rates, what is special), and the people in them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

NTSC = Fraction(30000, 1001)
TRAIN, VALIDATION = "Train_Set", "Validation_Set"


@dataclass(frozen=True)
class Recipe:
    """One video, as it will lie on disk.

    `fps` is the mean rate if `vfr`; `audio_late_s` is None without sound; `hidden` is how a face disappears
    (`away`, `card` or not at all); `masked` is where the −5 rows lie (`inside`, `ends` or nowhere).
    """

    video: str
    suffix: str
    fps: Fraction
    label_set: str
    subject: str
    vfr: bool = False
    pair: bool = False
    audio_late_s: float | None = 0.0
    hidden: str = ""
    masked: str = ""

    @property
    def trials(self) -> tuple[str, ...]:
        """Trials of the video: itself, or its two sides."""
        name = self.video.rpartition("/")[2]
        return (f"{name}_left", f"{name}_right") if self.pair else (name,)


@dataclass(frozen=True)
class Subject:
    """How one person looks and sounds, the same in all clips of the person.

    `tint` gains of red, green, blue; `stretch` width over height; `scale` px of the frame per px of the picture;
    `backdrop` RGB of the wall; `pitch_hz`; `vocal_tract` scales the formants (1.1: a shorter throat).
    """

    number: int
    mirrored: bool
    tint: tuple[float, ...]
    stretch: float
    scale: float
    backdrop: tuple[float, ...]
    pitch_hz: float
    vocal_tract: float

    @property
    def side(self) -> int:
        """−1 for a mirrored face, else 1."""
        return -1 if self.mirrored else 1


def draw_subject(number: int, rng: np.random.Generator) -> Subject:
    """A new person. The same state of `rng` gives the same one."""
    warm = rng.uniform(-0.07, 0.07)
    return Subject(
        number=number,
        mirrored=bool(number % 2),
        tint=tuple(map(float, rng.uniform(0.86, 0.98) * np.array([1 + warm, 1.0, 1 - warm]))),
        stretch=float(rng.uniform(0.94, 1.07)),
        scale=float(rng.uniform(0.86, 1.0)),
        backdrop=tuple(map(float, rng.uniform(70, 190) + rng.uniform(-30, 30, 3))),
        pitch_hz=float(rng.uniform(105, 190)),
        vocal_tract=float(rng.uniform(0.95, 1.08)),
    )


def _clip(video: str, suffix: str, fps: Fraction | int, label_set: str, **special: object) -> Recipe:
    subject = str(special.pop("subject", video.rpartition("/")[2]))
    return Recipe(video, suffix, Fraction(fps), label_set, subject, **special)  # type: ignore[arg-type]


# Everything special comes first, so that the smallest corpus has it too. Rates in names mislead, as in Aff-Wild2.
_FIRST = (
    _clip("batch1/video59", ".mp4", 25, VALIDATION, pair=True),
    _clip("batch2/video86_1", ".avi", 25, TRAIN, subject="video86", hidden="away"),
    _clip("batch2/video86_2", ".mp4", 24, TRAIN, subject="video86", audio_late_s=0.4, masked="inside"),
    _clip("batch1/10-60-1280x720", ".mp4", 22, TRAIN, vfr=True, hidden="card"),
    _clip("batch2/105", ".mkv", 15, TRAIN, audio_late_s=None, masked="ends"),
    _clip("batch1/video01", ".mp4", 30, TRAIN),
    _clip("batch1/24-30-1920x1080", ".mp4", NTSC, TRAIN, hidden="away", masked="inside"),
    _clip("batch1/122-60-1920x1080", ".mp4", 24, VALIDATION, hidden="card", masked="inside"),
    _clip("batch2/46-30-484x360", ".avi", 30, TRAIN),
    _clip("batch2/313", ".mp4", 15, VALIDATION, hidden="away"),
    _clip("batch1/video33", ".mkv", 25, TRAIN, masked="ends"),
)
MIN_TRIALS = 6
_RATES = (Fraction(30), NTSC, Fraction(25), Fraction(24), Fraction(15))
_SUFFIXES = (".mp4", ".mp4", ".mp4", ".avi", ".mp4", ".mkv", ".mp4")


def recipes(num_trials: int) -> list[Recipe]:
    """The videos of a corpus of so many trials: the table, then plain ones. Raises ValueError below 6 trials."""
    if num_trials < MIN_TRIALS:
        raise ValueError(f"a corpus with every special clip has {MIN_TRIALS} trials or more, got {num_trials}")
    chosen: list[Recipe] = []
    while sum(len(each.trials) for each in chosen) < num_trials:
        number = len(chosen) - len(_FIRST)
        if number < 0:
            chosen.append(_FIRST[len(chosen)])
            continue
        label_set = VALIDATION if number % 10 in (2, 5, 8) else TRAIN
        hidden, masked = ("away", "", "card", "")[number % 4], "inside" if number % 5 == 3 else ""
        suffix, fps = _SUFFIXES[number % len(_SUFFIXES)], _RATES[number % len(_RATES)]
        chosen.append(_clip(f"batch1/video{100 + number}", suffix, fps, label_set, hidden=hidden, masked=masked))
    return chosen
