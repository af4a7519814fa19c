"""Clips with white flashes and clicks at the same moments, and what to read them with."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import AudioReader, FrameReader

sys.path.append(str(Path(__file__).parent / "media"))  # the sweep is a program too

CLICK_S = 0.005


@dataclass(frozen=True)
class Decoded:
    """Everything in a clip: `pixels` [T,H,W,3], `time_s` [T], `samples` [S]."""

    pixels: np.ndarray
    time_s: np.ndarray
    samples: np.ndarray
    spans: list[tuple[float, float]]

    @property
    def flash_rows(self) -> np.ndarray:
        bright = self.pixels.mean(axis=(1, 2, 3)) > 128
        return np.flatnonzero(bright & ~np.concatenate([[False], bright[:-1]]))


@pytest.fixture(scope="session")
def decode() -> Callable[[Path], Decoded]:
    def read(path: Path) -> Decoded:
        info = probe(path)
        with FrameReader(info) as frames:
            batches = list(frames)
        samples = np.zeros(0, np.float32)
        spans: list[tuple[float, float]] = []
        if info.audio_stream is not None:
            with AudioReader(info) as audio:
                samples = np.concatenate(list(audio))
                spans = audio.real_spans()
        pixels = np.concatenate([batch.pixels for batch in batches])
        return Decoded(pixels, np.concatenate([batch.time_s for batch in batches]), samples, spans)

    return read


@pytest.fixture(scope="session")
def flashes() -> Callable[..., np.ndarray]:
    """Dark frames [T, H, W, 3], white at the given rows."""

    def draw(count: int, rows, size_px=(120, 160)) -> np.ndarray:
        frames = np.full((count, *size_px, 3), 16, np.uint8)
        frames[list(rows)] = 235
        return frames

    return draw


@pytest.fixture(scope="session")
def clicks() -> Callable[..., np.ndarray]:
    """Silence with bursts of 2 kHz, 5 ms long, centred on the given moments."""

    def draw(duration_s: float, rate_hz: int, moments_s) -> np.ndarray:
        samples = np.zeros(round(duration_s * rate_hz))
        for moment_s in moments_s:
            at = np.arange(round((moment_s - CLICK_S / 2) * rate_hz), round((moment_s + CLICK_S / 2) * rate_hz))
            off_s = at / rate_hz - float(moment_s)
            samples[at] = 0.8 * np.cos(2 * np.pi * 2000 * off_s) * np.cos(np.pi * off_s / CLICK_S) ** 2
        return samples

    return draw


@pytest.fixture(scope="session")
def synced(make_clip, flashes, clicks) -> Callable[..., Path]:
    """A 6 s clip whose flashes, at these rows, and clicks coincide on the container's clock."""

    def make(name: str, options: str, *, rate="25", rate_hz=44_100, channels=1, rows=(30, 75, 110), **late) -> Path:
        per_s = Fraction(rate)
        ahead_s = late.get("late_video_s", 0) - late.get("late_audio_s", 0)
        samples = clicks(6.0, rate_hz, [row / per_s + Fraction(ahead_s) for row in rows])
        if channels > 1:
            samples = samples[:, None].repeat(channels, axis=1)
        frames = flashes(int(6 * per_s), rows)
        words = tuple(options.split())
        return make_clip(name, frames, rate=rate, samples=samples, rate_hz=rate_hz, options=words, **late)

    return make
