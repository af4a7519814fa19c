"""The table of clips of the planted corpus: names, containers, rates and what is special about each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

NTSC = Fraction(30000, 1001)
TRAIN, VALIDATION = "Train_Set", "Validation_Set"


@dataclass(frozen=True)
class Recipe:
    """One video, as it will lie on disk.

    `fps` is the mean rate where `vfr`; `audio_late_s` is None without sound; `hidden` is how a face goes missing
    (`away`, `card` or not at all); `masked` is where −5 rows lie (`inside`, `ends` or nowhere).
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
    def name(self) -> str:
        """The video's name without its folder."""
        return self.video.rpartition("/")[2]

    @property
    def trials(self) -> tuple[str, ...]:
        """Trials of the video: itself, or its two sides."""
        return (f"{self.name}_left", f"{self.name}_right") if self.pair else (self.name,)


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
    for recipe in _endless():
        if sum(len(each.trials) for each in chosen) >= num_trials:
            break
        chosen.append(recipe)
    return chosen


def _endless() -> Iterator[Recipe]:
    yield from _FIRST
    number = 0
    while True:
        label_set = VALIDATION if number % 10 in (2, 5, 8) else TRAIN
        hidden, masked = ("away", "", "card", "")[number % 4], "inside" if number % 5 == 3 else ""
        suffix, fps = _SUFFIXES[number % len(_SUFFIXES)], _RATES[number % len(_RATES)]
        yield _clip(f"batch1/video{100 + number}", suffix, fps, label_set, hidden=hidden, masked=masked)
        number += 1
