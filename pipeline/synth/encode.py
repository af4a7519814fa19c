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

from ..media.ffmpeg_args import passthrough_option
from ..media.process import ffmpeg_version
from ..media.types import MediaError

_EXACT = ("-fflags", "+bitexact", "-flags", "+bitexact")
_H264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "17", "-pix_fmt", "yuv420p")
_MPEG4 = ("-c:v", "mpeg4", "-q:v", "2", "-bf", "0", "-pix_fmt", "yuv420p")
# These keep time to the sample. MP3 in AVI cannot tell its delay, AAC in Matroska shifts the picture; MP4 rounds a
# late start to ms, of which AAC's run-in is a whole number (32) at 32 kHz.
_CODECS = {
    ".mp4": (*_H264, "-video_track_timescale", "90000", "-c:a", "aac", "-ar", "32000", "-b:a", "128k"),
    ".mkv": (*_H264, "-c:a", "flac"),
    ".avi": (*_MPEG4, "-c:a", "pcm_s16le"),
}


@dataclass(frozen=True)
class Sound:
    """Mono `samples` float32 [S] at `rate_hz`; the first one is heard at `start_s` on the clip's clock."""

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
    """Write uint8 RGB frames [H, W, 3] and the sound; the suffix (.mp4, .mkv, .avi) tells the codecs.

    Frame N is shown at N/fps, or where the ffmpeg expression `times` (of N, in s) puts it.
    Raises MediaError with ffmpeg's words.
    """
    with tempfile.TemporaryDirectory(prefix="avfuse-synth-") as scratch:
        heard = _listen(sound, Path(scratch) / "sound.f32")
        shown = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "{}x{}".format(*size_px), "-r", str(fps), "-i", "pipe:0"]
        words = [*shown, *heard, "-map", "0:v", *(["-map", "1:a"] if sound else []), *_retimed(times)]
        _pipe([*words, *_CODECS[path.suffix], *_EXACT, f"file:{path}"], frames, path, Path(scratch) / "words")


def _listen(sound: Sound | None, raw: Path) -> list[str]:
    if sound is None:
        return []
    sound.samples.astype("<f4").tofile(raw)
    place = ["-itsoffset", f"{sound.start_s:.6f}"]
    return [*place, "-f", "f32le", "-ar", str(sound.rate_hz), "-ac", "1", "-i", f"file:{raw}"]


def _retimed(times: str) -> list[str]:
    if not times:
        return []
    # Encoders count in frames of the rate unless told of a finer clock, and then would fill it with copies.
    clock = ["-vf", f"settb=1/90000,setpts=round(({times})/TB)", "-enc_time_base", "1:90000"]
    return [*clock, f"-{passthrough_option(ffmpeg_version())}", "passthrough"]


def _pipe(words: list[str], frames: Iterable[NDArray[np.uint8]], path: Path, said: Path) -> None:
    command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-y", *words]
    with said.open("wb") as complaints:  # a file, for a full pipe would stop ffmpeg
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=complaints)
        except FileNotFoundError:
            raise MediaError(
                str(path), "start", "ffmpeg is not installed or not on PATH: apt-get install ffmpeg"
            ) from None
        with process:
            _feed(process, frames)
    if process.returncode:
        why = " ".join(said.read_text(errors="replace").split())[-500:]
        raise MediaError(str(path), "encode", why or f"ffmpeg ended with code {process.returncode}")


def _feed(process: subprocess.Popen[bytes], frames: Iterable[NDArray[np.uint8]]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # ffmpeg gave up: the caller tells its words
        for frame in frames:
            process.stdin.write(frame.tobytes())
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
