"""Real clips (skipped with a reason where they are missing) and generated ones."""

import json
import os
import subprocess
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

MEDIA = Path(__file__).parents[1].parent / "shared" / "media"


def pytest_generate_tests(metafunc):
    """`clip`: every entry of the manifest of which it is known how many frames it has."""
    if "clip" in metafunc.fixturenames:
        manifest = MEDIA / "MANIFEST.json"
        entries = json.loads(manifest.read_text()) if manifest.is_file() else []
        clips = [entry for entry in entries if entry.get("decoded_frames")] or [None]
        metafunc.parametrize("clip", clips, ids=[clip["file"] if clip else "missing" for clip in clips])


@pytest.fixture(scope="session")
def media() -> Path:
    """Folder of the real clips."""
    if not (MEDIA / "MANIFEST.json").is_file():
        reason = f"the real clips are not at {MEDIA}"
        if "media" in os.environ.get("AVFUSE_REQUIRE", "").split(","):
            pytest.fail(f"{reason}, and AVFUSE_REQUIRE asks for them")
        pytest.skip(reason)
    return MEDIA


@pytest.fixture(scope="session")
def manifest(media) -> list[dict]:
    """What is known about each real clip."""
    return json.loads((media / "MANIFEST.json").read_text())


@pytest.fixture(scope="session")
def ffmpeg_run() -> Callable[..., None]:
    """Run ffmpeg with these words; its own words are in the failure."""

    def run(*words, stdin: bytes | None = None) -> None:
        command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-y", *map(str, words)]
        done = subprocess.run(command, input=stdin or b"", capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()

    return run


@pytest.fixture(scope="session")
def write_wav() -> Callable[..., Path]:
    """Write samples [S] or [S, C] of ±1 as a 16-bit wav file."""

    def write(path: Path, samples: np.ndarray, rate_hz: int) -> Path:
        with wave.open(os.fspath(path), "wb") as file:
            file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
            file.setsampwidth(2)
            file.setframerate(rate_hz)
            file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
        return path

    return write


@pytest.fixture(scope="session")
def make_clip(tmp_path_factory, ffmpeg_run, write_wav) -> Callable[..., Path]:
    """A clip of frames uint8 [T, H, W, 3] at a rate, and of samples; `late_*_s` are the streams' starts."""

    def make(
        name: str,
        frames: np.ndarray,
        *,
        rate: str = "25",
        samples: np.ndarray | None = None,
        rate_hz: int = 44_100,
        options: tuple[str, ...] = (),
        late_video_s: float = 0.0,
        late_audio_s: float = 0.0,
    ) -> Path:
        folder = tmp_path_factory.mktemp("clip")
        height, width = frames.shape[1:3]
        words = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", rate, "-i", "pipe:"]
        if samples is not None:
            words += ["-i", write_wav(folder / "sound.wav", samples, rate_hz)]
        ffmpeg_run(*words, *options, folder / name, stdin=frames.tobytes())
        if not (late_video_s or late_audio_s):
            return folder / name
        # Encoders round an offset to their frame rate; copied packets keep it.
        two = [
            "-itsoffset",
            late_video_s,
            "-i",
            folder / name,
            "-itsoffset",
            late_audio_s,
            "-i",
            folder / name,
        ]
        ffmpeg_run(*two, "-map", "0:v", "-map", "1:a", "-c", "copy", folder / f"late_{name}")
        return folder / f"late_{name}"

    return make
