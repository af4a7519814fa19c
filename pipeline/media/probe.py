"""What ffprobe says about a file, as a `VideoInfo`: its streams, its upright size, where it begins.

Tested by tests/pipeline/media/test_readers.py, test_streams.py and tests/faults/zoo.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from contextlib import closing, suppress
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from ...features_store.records.failures import Stage
from . import ffmpeg_args, process
from .joins import with_parts
from .streams import Choice, Streams, choose, lacks_parameters
from .types import LATEST_S, MAX_PIXELS, MediaError, VideoInfo

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
# Their decoders wait for a key frame (H.264's: or a point of recovery); others show grey, and what they patch into it.
_WAITING = ("h264", "mpeg1video", "mpeg2video", "vp8", "vp9", "av1", "vvc")
_FEW_PACKETS = 300  # where none is marked as a key frame


def check_file(path: Path) -> None:
    """Raise MediaError for what is not a readable file with something in it."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # before it is opened: a pipe without a writer would wait for ever
            raise MediaError(str(path), Stage.PROBE, "is not a file: give the video file itself")
        with path.open("rb"):
            pass
    except OSError as error:
        raise MediaError(str(path), Stage.PROBE, f"cannot be opened: {error.strerror}") from error
    if not status.st_size:
        raise MediaError(str(path), Stage.PROBE, "is empty (0 bytes): copy or download it again")


def video_info(
    path: Path,
    found: Mapping[str, Any],
    streams: Streams,
    first: Mapping[str, Any],
    *,
    hard_to_probe: bool,
    from_key: bool,
) -> VideoInfo:
    """From ffprobe's JSON of a file and, if one decodes, its first frame. Raises MediaError without a usable size."""
    video, audio = streams.video, streams.audio
    width_px, height_px = int(video.get("width", 0)), int(video.get("height", 0))
    if width_px < 1 or height_px < 1:
        raise MediaError(str(path), Stage.PROBE, "has a video stream without a frame size: damaged, or cut too early")
    if width_px * height_px > MAX_PIXELS:
        raise MediaError(str(path), Stage.PROBE, f"has frames of {width_px} × {height_px} px: more than 2^26 px")
    pixel_aspect = _ratio(first.get("sample_aspect_ratio")) or _ratio(video.get("sample_aspect_ratio")) or Fraction(1)
    turns = [float(each["rotation"]) for each in video.get("side_data_list", []) if "rotation" in each]
    # The container's word counts: of the pictures only some carry theirs, and ffmpeg would turn those alone by it.
    turn = _turn(video) or (() if any(turns) else _turn(first))
    # ffmpeg transposes within 1° of a quarter turn (fftools: insert_filter "transpose").
    if (turns and abs(turns[0] % 180 - 90) < 1) or (turn and turn[0].startswith("transpose")):
        width_px, height_px, pixel_aspect = height_px, width_px, 1 / pixel_aspect
    starts_s = []
    for stream in (video, audio or {}):
        # `start_time` is rounded to µs; raw streams have no times at all.
        tick_s = _ratio(stream.get("time_base"))
        start_s = float(stream["start_pts"] * tick_s) if tick_s and "start_pts" in stream else 0.0
        starts_s.append(start_s if abs(start_s) <= LATEST_S else 0.0)
    container = str(found["format"]["format_name"]).split(",", maxsplit=1)[0]
    duration_s, tick_s = None, _ratio(video.get("time_base"))
    if container == "avi" and tick_s and "nb_frames" in video:
        duration_s = float(int(video["nb_frames"]) * tick_s)  # the header's; `duration` is what is left of a cut file
    elif length := video.get("duration") or found["format"].get("duration"):
        duration_s = float(length)
    audio_length = (audio or {}).get("duration")
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
        video_start_s=starts_s[0],
        audio_start_s=starts_s[1] if audio else None,
        duration_s=duration_s,
        pixel_aspect=pixel_aspect,
        turn=turn,
        hard_to_probe=hard_to_probe,
        from_key=from_key,
        audio_duration_s=float(audio_length) if audio_length else None,
    )


def _turn(shown: Mapping[str, Any]) -> tuple[str, ...]:
    """Filters for the display matrix of a container's stream, or of a coded picture (an SEI message of H.264, HEVC)."""
    for each in shown.get("side_data_list", []):
        rows = [line.partition(":")[2].split() for line in str(each.get("displaymatrix", "")).split("\n") if line]
        if len(rows) == 3:
            numbers = [int(number) / (1 << 16) for row in rows[:2] for number in row[:2]]
            signs = tuple(map(round, numbers))
            near = all(abs(number - sign) < _QUARTER for number, sign in zip(numbers, signs, strict=True))
            return _TURNS.get(signs, ()) if near else ()
    return ()


def _ratio(text: str | None) -> Fraction | None:
    """The value of `30000/1001`, `4:3` or `25`; None where it is not a positive number."""
    num, _, den = (text if text and text[0].isdigit() else "0/0").replace(":", "/").partition("/")
    return Fraction(int(num), int(den or 1)) if int(num) > 0 and int(den or 1) > 0 else None


def probe(
    path: str | os.PathLike[str],
    choice: Choice = Choice(),  # noqa: B008 - frozen
    *,
    stall_timeout_s: float = 60.0,
) -> VideoInfo:
    """Look into a video file without decoding more of it than a frame, and choose its picture and its sound.

    Raises MediaError for what is not a readable local video file: folders, empty files, playlists, sound
    alone, frames of more than 2^26 px; where there is no stream of the wanted number; and where no packet comes
    for `stall_timeout_s`.
    """
    path = Path(os.path.abspath(path))  # `resolve` would follow links
    check_file(path)

    def ask(arguments: list[str]) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(process.ask(arguments, str(path)))
        return answer

    found = ask(ffmpeg_args.to_probe(str(path)))
    if hard := lacks_parameters(found):
        found = ask(ffmpeg_args.to_probe(str(path), long_look=True))
    count_packets = partial(ask, ffmpeg_args.to_count_packets(str(path)))
    streams = choose(path, found, choice, process.decodable_codecs, count_packets)
    stream, waits = int(streams.video["index"]), streams.video.get("codec_name") in _WAITING

    def first_frame(num_packets: int, *, keys_only: bool = False) -> dict[str, Any]:
        words = ffmpeg_args.to_first_frame(str(path), stream, num_packets, keys_only=keys_only, long_look=hard)
        with suppress(MediaError):  # whoever decodes it will say what is wrong
            return next(iter(ask(words).get("frames", [])), {})
        return {}

    first = first_frame(1)
    from_key = False
    if not first or not (waits or int(first.get("key_frame", 0))):
        # A capture that begins in mid-GOP: however long that one is, what counts is the key frame at its end.
        first_key, number = None, 0
        packets = process.lines(ffmpeg_args.to_packets(str(path), "flags", stream), str(path), stall_timeout_s)
        with closing(packets):
            for flags in packets:
                if number and flags.startswith(b"K"):  # packet 0 is the one that shows none
                    first_key = number
                    break
                number += flags.startswith((b"K", b"_"))
        key = first_frame(first_key + 2, keys_only=True) if first_key else {}
        from_key = not waits and bool(int(key.get("key_frame", 0)))
        first = key or first or first_frame(_FEW_PACKETS)
    info = video_info(path, found, streams, first, hard_to_probe=hard, from_key=from_key)
    return with_parts(info, stall_timeout_s)
