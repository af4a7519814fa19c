"""The people of the planted corpus: one face picture and one voice, varied."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Subject:
    """How one person looks and sounds, the same in all clips of the person.

    `tint` gains of red, green, blue; `stretch` width over height; `scale` px of the frame per px of the picture;
    `backdrop` RGB of the wall; `pitch_hz`; `vocal_tract` scales the formants (1.1: a shorter throat).
    """

    number: int
    mirrored: bool
    tint: tuple[float, float, float]
    stretch: float
    scale: float
    backdrop: tuple[float, float, float]
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
        tint=_three(rng.uniform(0.86, 0.98) * np.array([1 + warm, 1.0, 1 - warm])),
        stretch=float(rng.uniform(0.94, 1.07)),
        scale=float(rng.uniform(0.86, 1.0)),
        backdrop=_three(rng.uniform(70, 190) + rng.uniform(-30, 30, 3)),
        pitch_hz=float(rng.uniform(105, 190)),
        vocal_tract=float(rng.uniform(0.95, 1.08)),
    )


def _three(values: NDArray[np.float64]) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue
