"""A browser (skipped with a reason where there is none), and a store with hostile names, videos and a run."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avfuse.features_store.schema import JsonValue
from avfuse.features_store.store import FeatureStore

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
# As files may be called on Linux; each is a trial with a video.
HOSTILE = ("<script>hit=1; x", "a'b\"c & {{ d }}", "Ünï 字 #1?%41", "talk")
GAP = slice(20, 35)  # rows without a face
WIDTH_PX, HEIGHT_PX, RATE_HZ, ROWS = 160, 120, 25, 100


@dataclass(frozen=True)
class Corpus:
    """A store, its labels and videos, and a run that holds out clip3 and clip7 and has not seen the hostile ones."""

    store: Path
    annotations: Path
    videos: Path
    run: Path


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, driven by playwright."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        reason = f"none of {', '.join(BROWSERS)} is installed"
        if "browser" in os.environ.get("AVFUSE_REQUIRE", "").split(","):
            pytest.fail(f"{reason}, and AVFUSE_REQUIRE asks for a browser")
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Root in a container has no sandbox; the pages are our own.
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="session")
def moving_frames() -> np.ndarray:
    """Frames of a bright square, uint8 [ROWS, H, W, 3], that moves a pixel a frame to the right."""
    frames = np.full((ROWS, HEIGHT_PX, WIDTH_PX, 3), 40, np.uint8)
    for row in range(ROWS):
        frames[row, 40:80, 10 + row // 2 : 50 + row // 2] = (200, 150, 120)
    return frames


@pytest.fixture(scope="session")
def tone() -> np.ndarray:
    """Sound of 4 s at 44.1 kHz: loud, but from 1 s to 2 s."""
    time_s = np.arange(4 * 44_100) / 44_100
    return np.where((time_s >= 1) & (time_s < 2), 0.001, 0.5) * np.sin(2 * np.pi * 440 * time_s)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory, plant_small, fit, make_clip, moving_frames, tone) -> Corpus:
    """Trials clip0 … clip7 of numbers alone, the hostile ones with faces and videos, and a run on the former."""
    folder = tmp_path_factory.mktemp("report")
    small = plant_small(folder)
    assert fit(small, folder / "run").exit_code == 0
    clip = make_clip("clip.mp4", moving_frames, rate=str(RATE_HZ), samples=tone, options=("-pix_fmt", "yuv420p"))
    store = FeatureStore(small.store, mode="a")
    (folder / "videos").mkdir()
    rng = np.random.default_rng(0)
    for name in HOSTILE:
        shutil.copy(clip, folder / "videos" / f"{name}.mp4")
        arrays: dict[str, np.ndarray] = {"time": np.arange(ROWS) / RATE_HZ}
        left = 10.0 + np.arange(ROWS) // 2
        box = np.stack([left, np.full(ROWS, 40.0), left + 40, np.full(ROWS, 80.0)], axis=1)
        box[GAP] = np.nan
        corners = np.array([[12, 14], [28, 14], [20, 22], [14, 30], [26, 30]], float)
        landmarks = corners + np.stack([left, np.full(ROWS, 40.0)], axis=1)[:, None]
        landmarks[GAP] = np.nan
        score = np.full(ROWS, 0.99)
        score[GAP] = 0
        arrays |= {"face_box": box, "face_landmarks": landmarks, "face_score": score}
        for feature, width in (("face", 6), ("voice", 4)):
            arrays[feature] = rng.standard_normal((ROWS, width))
            arrays[f"{feature}_valid"] = np.ones(ROWS, bool)
        kept = {
            key: rows if key == "time" or rows.dtype == bool else rows.astype(np.float32)
            for key, rows in arrays.items()
        }
        source: JsonValue = {"name": f"{name}.mp4", "size": clip.stat().st_size}
        about: dict[str, JsonValue] = {
            "fps": "25",
            "vfr": name == "talk",
            "audio": "present",
            "video_start_s": 0.0,
            "audio_start_s": 0.04,
        }
        warnings: JsonValue = ["<b>odd</b> sound"] if name == "talk" else []
        store.write(name, kept, {"fingerprint": "planted", **about, "source": source, "warnings": warnings})
    return Corpus(small.store, small.annotations, folder / "videos", folder / "run")


@pytest.fixture(scope="session")
def make_report(avfuse, corpus, tmp_path_factory) -> Callable[..., Path]:
    """`avfuse report` of the corpus with these words; the folder of its pages."""

    def make(*words) -> Path:
        out = tmp_path_factory.mktemp("pages") / "report"
        made = avfuse("report", "--store", corpus.store, "--out", out, "--device", "cpu", *words)
        assert made.exit_code == 0, made.stderr
        return out

    return make


@pytest.fixture(scope="session")
def whole_report(make_report, corpus) -> Path:
    """With videos and a run."""
    return make_report("--videos", corpus.videos, "--run", corpus.run)
