"""What a file says about itself and what comes out of it: `VideoInfo`, frames, and the error for unreadable files."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `extract --help` loads this file
    import numpy as np
    from numpy.typing import NDArray

    from ...features_store.records.failures import Stage

SAMPLE_RATE_HZ = 16_000
MAX_PIXELS = 1 << 26
MAX_STREAMS = 128
# Times on a wall clock (since 1970) are in use; what is later comes of damage, and float64 would blur it.
LATEST_S = 1e10


class MediaError(RuntimeError):
    """A file that cannot be read: `path`, the `stage` that failed, what is wrong in ffmpeg's own words.

    `is_transient`: nothing is wrong with the file as far as is known, it took too long.
    """

    def __init__(self, path: str, stage: Stage, words: str, is_transient: bool = False) -> None:
        super().__init__(path, stage, words, is_transient)
        self.path, self.stage, self.words, self.is_transient = path, stage, words, is_transient

    def __str__(self) -> str:
        return f"{self.path}: {self.words} ({self.stage})"


@dataclass(frozen=True)
class Part:
    """One recording of several in a file, as one stream sees it: its times, s, and what puts them on one clock."""

    first_s: float
    last_s: float
    offset_s: float


@dataclass(frozen=True)
class VideoInfo:
    """What a file says about itself; sizes in px as displayed (rotated), starts in s on its own clock.

    `video_stream`, `audio_stream`: places in the file; `video_name`, `audio_name`: the same as ffmpeg's `v:N`, `a:N`.
    `pixel_aspect`: width : height of a pixel as displayed; `turn`: filters that turn the picture upright; none too
    where ffmpeg does so by itself (odd angles). `hard_to_probe`: only a second, longer look found what its streams
    are, and decoding needs that look too. `from_key`: what is shown before the first key frame lacks what it was
    coded from.
    """

    path: Path
    container: str
    video_stream: int
    audio_stream: int | None
    video_name: str
    audio_name: str | None
    audio_channels: int
    width_px: int
    height_px: int
    fps: Fraction | None
    video_start_s: float
    audio_start_s: float | None
    duration_s: float | None
    pixel_aspect: Fraction = Fraction(1)
    turn: tuple[str, ...] = ()
    hard_to_probe: bool = False
    from_key: bool = False
    # Where recordings were joined: what puts each stream's times on one clock.
    video_parts: tuple[Part, ...] = ()
    audio_parts: tuple[Part, ...] = ()
    audio_duration_s: float | None = None

    @property
    def origin_s(self) -> float:
        """Time 0 of the rows: the earlier start of the two streams."""
        return self.video_start_s if self.audio_start_s is None else min(self.video_start_s, self.audio_start_s)


@dataclass(frozen=True)
class FrameBatch:
    """Frames in order: `pixels` uint8 [N, H, W, 3] RGB ([N, 0, 0, 3] without pixels), `time_s` float64 [N].

    Raises ValueError where there is not one time per frame.
    """

    pixels: NDArray[np.uint8]
    time_s: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.time_s.shape != self.pixels.shape[:1]:
            raise ValueError(f"one time per frame, got {self.pixels.shape = }, {self.time_s.shape = }")


@dataclass(frozen=True)
class Ending:
    """How decoding ended: `truncated` when in an error, after what was delivered; `warnings` name damage."""

    truncated: bool
    warnings: tuple[str, ...]
