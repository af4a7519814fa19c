"""Recordings joined in one file: where the clock of its packets starts anew, in every stream by one amount.

    packets   picture 0 … 2.00 | 0 … 2.00        the clock of both streams falls
              sound   0 … 1.95 | 0 … 1.95
    on one    picture 0 … 2.00 | 2.04 … 4.04     a part begins where the longest stream of the one before ended
    clock     sound   0 … 1.95 | 2.04 … 3.99     its streams keep what they are apart

Tested by tests/pipeline/media/test_cases_clock.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

from . import ffmpeg_args, process
from .frame_clock import LONGEST_PAUSE_S, NEW_CLOCK_S
from .types import LATEST_S, Part, VideoInfo

# An index of an MP4 or AVI has one clock; these are written as they come, and can be put one behind the other.
_JOINABLE = ("mpegts", "mpeg", "flv", "ogg", "matroska", "wtv")
_CONFIRMED_BY = 2


@dataclass
class _Stream:
    """What was seen of one stream: its parts as [number, first, last, end], s, and packets out of line."""

    parts: list[list[float]] = field(default_factory=list)
    last_dts_s: float | None = None
    before_s: float | None = None  # the one before a packet that was ahead: it may be that one that is wrong
    pending: list[tuple[float, float, float]] = field(default_factory=list)


def with_parts(info: VideoInfo, stall_timeout_s: float) -> VideoInfo:
    """The same with the parts of a joined recording. Raises MediaError where nothing comes for `stall_timeout_s`."""
    if info.audio_stream is None or info.container not in _JOINABLE:
        return info
    seen = find_parts(_packets(info, stall_timeout_s), (info.video_stream, info.audio_stream))
    return replace(info, video_parts=seen[0], audio_parts=seen[1]) if all(len(each) > 1 for each in seen) else info


def find_parts(
    packets: Iterable[tuple[int, float, float, float]], streams: tuple[int, ...]
) -> tuple[tuple[Part, ...], ...]:
    """Parts of each of the `streams`, from (stream, PTS, DTS, length) of packets in the order of the file, s.

    A stream is in a new part when two packets one after the other agree that its clock fell by more than half a
    second, or went ahead by half a day.
    """
    found = {stream: _Stream() for stream in streams}
    newest = 0
    for stream, pts_s, dts_s, length_s in packets:
        if stream not in found:
            continue
        one = found[stream]
        if one.last_dts_s is not None and one.before_s is not None and dts_s < one.last_dts_s:
            one.last_dts_s = min(one.last_dts_s, max(one.before_s, dts_s))
        if one.last_dts_s is not None and not -NEW_CLOCK_S <= dts_s - one.last_dts_s <= LONGEST_PAUSE_S:
            agrees = not one.pending or abs(dts_s - one.pending[-1][1]) <= NEW_CLOCK_S
            one.pending = [*one.pending, (pts_s, dts_s, length_s)] if agrees else [(pts_s, dts_s, length_s)]
            if len(one.pending) < _CONFIRMED_BY:
                continue
            number = newest if one.parts[-1][0] < newest else newest + 1
            newest = number
            confirmed = one.pending
        else:
            number = int(one.parts[-1][0]) if one.parts else newest
            confirmed = [(pts_s, dts_s, length_s)]
        one.pending = []
        for begin_s, coded_s, lasts_s in confirmed:
            jumped = one.last_dts_s is not None and coded_s - one.last_dts_s > NEW_CLOCK_S
            one.before_s = one.last_dts_s if jumped else None
            if not one.parts or one.parts[-1][0] != number:
                one.parts.append([number, begin_s, begin_s, begin_s + lasts_s])
            elif not jumped:  # one alone that is ahead does not say where the part ends
                part = one.parts[-1]
                part[1:] = min(part[1], begin_s), max(part[2], begin_s), max(part[3], begin_s + lasts_s)
            one.last_dts_s = coded_s
    # A part begins where the longest stream of the one before ended.
    offsets_s: dict[float, float] = {0: 0.0}
    parts = [part for each in found.values() for part in each.parts]
    for before, after in pairwise(sorted({part[0] for part in parts})):
        end_s = max(part[3] for part in parts if part[0] == before)
        start_s = min(part[1] for part in parts if part[0] == after)
        offsets_s[after] = end_s + offsets_s[before] - start_s
    return tuple(
        tuple(Part(first_s, last_s, offsets_s[number]) for number, first_s, last_s, _ in found[stream].parts)
        for stream in streams
    )


def _packets(info: VideoInfo, stall_timeout_s: float) -> Iterator[tuple[int, float, float, float]]:
    arguments = ffmpeg_args.to_packets(str(info.path), "stream_index,pts_time,dts_time,duration_time")
    for line in process.lines(arguments, str(info.path), stall_timeout_s):
        words = line.split(b",")
        try:
            stream = int(words[0])
            pts_s, dts_s, length_s = (None if word == b"N/A" else float(word) for word in words[1:4])
        except ValueError:  # torn, or of another form
            continue
        if pts_s is None and dts_s is None:
            continue
        dts_s = pts_s if dts_s is None else dts_s
        pts_s = dts_s if pts_s is None else pts_s
        if pts_s is not None and dts_s is not None and max(abs(pts_s), abs(dts_s)) <= LATEST_S:
            yield stream, pts_s, dts_s, length_s or 0.0
