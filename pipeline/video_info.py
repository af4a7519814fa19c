"""What ffprobe tells about a file, as a `VideoInfo`; and the error for unreadable files. Starts nothing."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .timeline import Part

if TYPE_CHECKING:
    from .streams import Streams

MAX_PIXELS = 1 << 26
MAX_STREAMS = 128
# Times on a wall clock (since 1970) are in use; what is later comes of damage, and float64 would blur it.
LATEST_S = 1e10
_PLAYLISTS = ("hls", "concat", "dash", "imf", "sdp", "rtsp", "webm_dash_manifest")
_SOUND = ("wav", "mp3", "flac", "aac", "ac3", "eac3", "aiff", "au", "caf", "w64", "amr", "ape", "wv")
_REFUSED = re.compile(r"\[([\w,]+) @ \w+\] (?:\[\w+\] )?Format not on whitelist")
_TOO_LARGE = re.compile(r"Picture size (\d+)x(\d+) is invalid")
# Rows (a, b), (c, d) of a display matrix, and what ffmpeg does about the same matrix in a container.
_TURNS: dict[tuple[int, ...], tuple[str, ...]] = {
    (0, 1, -1, 0): ("transpose=clock",),
    (0, 1, 1, 0): ("transpose=cclock_flip",),
    (0, -1, 1, 0): ("transpose=cclock",),
    (0, -1, -1, 0): ("transpose=clock_flip",),
    (-1, 0, 0, -1): ("hflip", "vflip"),
    (-1, 0, 0, 1): ("hflip",),
    (1, 0, 0, -1): ("vflip",),
}
_QUARTER = 0.02  # the sine of 1°, by which ffmpeg too lets a quarter turn be off
_ADDRESS = re.compile(r" @ 0x[0-9a-f]+\]")


class MediaError(RuntimeError):
    """A file that cannot be read: `path`, the `stage` that failed, what is wrong in ffmpeg's own words.

    `may_pass`: nothing is wrong with the file as far as is known, it took too long.
    """

    def __init__(self, path: str, stage: str, words: str, may_pass: bool = False) -> None:
        super().__init__(path, stage, words, may_pass)
        self.path, self.stage, self.words, self.may_pass = path, stage, words, may_pass

    def __str__(self) -> str:
        return f"{self.path}: {self.words} ({self.stage})"


@dataclass(frozen=True)
class VideoInfo:
    """What a file says about itself; sizes in px as displayed (rotated), starts in s on its own clock.

    `video_stream`, `audio_stream`: places in the file; `video_name`, `audio_name`: the same as ffmpeg's `v:N`, `a:N`.
    `pixel_aspect`: width : height of a pixel as displayed; `turn`: filters that turn the picture upright; none too
    where ffmpeg does so by itself (odd angles). `hard_to_probe`: told by a second, longer look, which decoding
    needs too. `from_key`: what is shown before the first key frame lacks what it was coded from.
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

    @property
    def origin_s(self) -> float:
        """Time 0 of the rows: the earlier start of the two streams."""
        return self.video_start_s if self.audio_start_s is None else min(self.video_start_s, self.audio_start_s)


@dataclass(frozen=True)
class FrameBatch:
    """Frames in order: `pixels` uint8 [N,H,W,3] RGB ([N,0,0,3] without pixels), `time_s` float64 [N]."""

    pixels: NDArray[np.uint8]
    time_s: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.time_s.shape != self.pixels.shape[:1]:
            raise ValueError(f"one time a frame, got {self.pixels.shape = }, {self.time_s.shape = }")


@dataclass(frozen=True)
class Ending:
    """How decoding ended: `truncated` when in an error, after what was delivered; `warnings` name damage."""

    truncated: bool
    warnings: tuple[str, ...]


def check_file(path: Path) -> None:
    """Raise MediaError for what is not a readable file with something in it."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # before it is opened: a pipe without a writer would wait for ever
            raise MediaError(str(path), "probe", "is not a file: give the video file itself")
        with path.open("rb"):
            pass
    except OSError as error:
        raise MediaError(str(path), "probe", f"cannot be opened: {error.strerror}") from error
    if not status.st_size:
        raise MediaError(str(path), "probe", "is empty (0 bytes): copy or download it again")


def video_info(
    path: Path,
    found: Mapping[str, Any],
    streams: Streams,
    first: Mapping[str, Any],
    *,
    hard_to_probe: bool,
    from_key: bool,
) -> VideoInfo:
    """From ffprobe's JSON about a file and, where one decodes, its first frame; MediaError without a usable size."""
    video, audio = streams.video, streams.audio
    width_px, height_px = int(video.get("width", 0)), int(video.get("height", 0))
    if width_px < 1 or height_px < 1:
        raise MediaError(str(path), "probe", "has a video stream without a frame size: damaged, or cut too early")
    if width_px * height_px > MAX_PIXELS:
        raise MediaError(str(path), "probe", f"has frames of {width_px} × {height_px} px: more than 2^26 px")
    pixel_aspect = _pixel_aspect(first) or _pixel_aspect(video) or Fraction(1)
    turns = [float(each["rotation"]) for each in video.get("side_data_list", []) if "rotation" in each]
    # The container's word counts: of the pictures only some carry theirs, and ffmpeg would turn those alone by it.
    turn = _turn(video) or (() if any(turns) else _turn(first))
    # ffmpeg transposes within 1° of a quarter turn (fftools: insert_filter "transpose").
    if (turns and abs(turns[0] % 180 - 90) < 1) or (turn and turn[0].startswith("transpose")):
        width_px, height_px, pixel_aspect = height_px, width_px, 1 / pixel_aspect
    container = str(found["format"]["format_name"]).split(",", maxsplit=1)[0]
    return VideoInfo(
        path=path,
        container=container,
        video_stream=int(video["index"]),
        audio_stream=int(audio["index"]) if audio else None,
        video_name=streams.video_name,
        audio_name=streams.audio_name,
        audio_channels=int(audio.get("channels", 0)) if audio else 0,
        width_px=width_px,
        height_px=height_px,
        fps=_ratio(video.get("avg_frame_rate")),
        video_start_s=_start_s(video),
        audio_start_s=_start_s(audio) if audio else None,
        duration_s=_duration_s(container, video, found["format"]),
        pixel_aspect=pixel_aspect,
        turn=turn,
        hard_to_probe=hard_to_probe,
        from_key=from_key,
    )


def why_refused(said: str) -> str:
    """ffprobe's complaints as one line: what is wrong with the file and what to give instead."""
    if "exceeds max_streams" in said:
        return f"has more than {MAX_STREAMS} streams: damaged, or made to do harm"
    if size := _TOO_LARGE.search(said):
        return f"has frames of {size[1]} × {size[2]} px: more than 2^26 px, or damaged"
    refused = _REFUSED.search(said)
    names = refused[1].split(",") if refused else []
    if any(name in _PLAYLISTS for name in names):
        return f"is a playlist ({names[0]}): playlists are refused, give the media file itself"
    if any(name in _SOUND for name in names):
        return f"has no video stream (sound alone: {names[0]}): give a file with a picture track"
    if names:
        return f"is not a video container that is read here (ffmpeg takes it for {names[0]})"
    lines = list(dict.fromkeys(_ADDRESS.sub("]", line.strip()) for line in said.splitlines() if line.strip()))
    return f"cannot be read as a video: {'; '.join(lines[-3:]) or 'ffmpeg gave no reason'}"


def is_torn_avi(path: Path) -> bool:
    """Whether an AVI ends within one of its parts, by the lengths that these say; empty chunks make none shorter."""
    size, at = path.stat().st_size, 0
    with path.open("rb") as file:
        while at + 8 <= size:
            file.seek(at)
            length = int.from_bytes(file.read(8)[4:], "little")
            at += 8 + length + length % 2
    return at > size + 1


def _pixel_aspect(stream: Mapping[str, Any]) -> Fraction | None:
    return _ratio(str(stream.get("sample_aspect_ratio", "")).replace(":", "/"))


def _turn(told: Mapping[str, Any]) -> tuple[str, ...]:
    """Filters for the display matrix of a container's stream, or of a coded picture (an SEI message of H.264, HEVC)."""
    for each in told.get("side_data_list", []):
        rows = [line.partition(":")[2].split() for line in str(each.get("displaymatrix", "")).split("\n") if line]
        if len(rows) == 3:
            numbers = [int(number) / (1 << 16) for row in rows[:2] for number in row[:2]]
            signs = tuple(map(round, numbers))
            near = all(abs(number - sign) < _QUARTER for number, sign in zip(numbers, signs, strict=True))
            return _TURNS.get(signs, ()) if near else ()
    return ()


def _ratio(text: str | None) -> Fraction | None:
    num, _, den = (text if text and text[0].isdigit() else "0/0").partition("/")
    return Fraction(int(num), int(den or 1)) if int(num) > 0 and int(den or 1) > 0 else None


def _start_s(stream: Mapping[str, Any]) -> float:
    # `start_time` is rounded to µs; raw streams have no times at all
    time_base = _ratio(stream.get("time_base"))
    start_s = float(stream["start_pts"] * time_base) if time_base and "start_pts" in stream else 0.0
    return start_s if abs(start_s) <= LATEST_S else 0.0


def _duration_s(container: str, video: Mapping[str, Any], whole: Mapping[str, Any]) -> float | None:
    time_base = _ratio(video.get("time_base"))
    if container == "avi" and time_base and "nb_frames" in video:
        return float(int(video["nb_frames"]) * time_base)  # the header's; `duration` is what is left of a cut file
    text = video.get("duration") or whole.get("duration")
    return float(text) if text else None
