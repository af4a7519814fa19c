"""Painted frames and samples to a video file, by an ffmpeg of its own."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...features_store.records.failures import Stage
from ..media import process
from ..media.ffmpeg_args import passthrough_option
from ..media.types import MediaError

_EXACT = ("-fflags", "+bitexact", "-flags", "+bitexact")
_H264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "17", "-pix_fmt", "yuv420p")
_MPEG4 = ("-c:v", "mpeg4", "-q:v", "2", "-bf", "0", "-pix_fmt", "yuv420p")
# These keep time to the sample. MP3 in AVI cannot signal its delay, AAC in Matroska shifts the picture; MP4 rounds a
# late start to ms, of which AAC's run-in is a whole number (32) at 32 kHz.
_CODECS = {
    ".mp4": (*_H264, "-video_track_timescale", "90000", "-c:a", "aac", "-ar", "32000", "-b:a", "128k"),
    ".mkv": (*_H264, "-c:a", "flac"),
    ".avi": (*_MPEG4, "-c:a", "pcm_s16le"),
}


@dataclass(frozen=True)
class Sound:
    """Mono `samples` float32 [S] at `rate_hz`; the first one sounds at `start_s` on the clip's clock."""

    samples: NDArray[np.float32]
    rate_hz: int
    start_s: float


def encode(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    size_px: tuple[int, int],
    fps: Fraction,
    sound: Sound | None,
    times: str = "",
) -> None:
    """Write uint8 RGB frames [H, W, 3] and the sound; the suffix (.mp4, .mkv, .avi) decides the codecs.

    Frame N is shown at N/fps, or at the time that the ffmpeg expression `times` (of N, in s) gives.
    Raises MediaError with ffmpeg's words.
    """
    command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-y"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size_px[0]}x{size_px[1]}", "-r", str(fps)]
    command += ["-i", "pipe:0"]
    with tempfile.TemporaryDirectory(prefix="avfuse-synth-") as scratch:
        if sound is not None:
            raw = Path(scratch) / "sound.f32"
            sound.samples.astype("<f4").tofile(raw)
            command += ["-itsoffset", f"{sound.start_s:.6f}", "-f", "f32le", "-ar", str(sound.rate_hz), "-ac", "1"]
            command += ["-i", f"file:{raw}"]
        command += ["-map", "0:v", *(["-map", "1:a"] if sound else [])]
        if times:
            # Without a finer clock encoders count in frames of the rate, and would then fill it with copies.
            command += ["-vf", f"settb=1/90000,setpts=round(({times})/TB)", "-enc_time_base", "1:90000"]
            command += [f"-{passthrough_option(process.ffmpeg_version())}", "passthrough"]
        command += [*_CODECS[path.suffix], *_EXACT, f"file:{path}"]
        log = Path(scratch) / "log"
        with log.open("wb") as errors:  # a file, because a full pipe would stop ffmpeg
            writer = process.start(command, str(path), stdin=subprocess.PIPE, stderr=errors)
            with writer:
                assert writer.stdin is not None
                with contextlib.suppress(BrokenPipeError):  # ffmpeg gave up: its words are below
                    for frame in frames:
                        writer.stdin.write(frame.tobytes())
                with contextlib.suppress(BrokenPipeError):
                    writer.stdin.close()
        if writer.returncode:
            reason = " ".join(log.read_text(errors="replace").split())[-500:]
            raise MediaError(str(path), Stage.ENCODE, reason or f"ffmpeg ended with code {writer.returncode}")
