"""Which of a file's streams are its picture and its sound, from what ffprobe tells. Starts nothing.

    picture   no cover, no still image or slides beside a video, even where they are the default; of those with a
              decoder the default one, else the first
    sound     of the picture's programme (a broadcast has several); no commentary, no description for the blind;
              of those with a decoder the default one, else the first

`--video-stream N` and `--audio-stream N` choose by ffmpeg's `v:N` and `a:N` instead: the N-th of its kind, from 0 on.
Tested by tests/pipeline/media/test_streams.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .types import MediaError

Stream = Mapping[str, Any]  # as ffprobe tells

_STILL = ("attached_pic", "timed_thumbnails", "still_image")
_BESIDE = ("comment", "descriptions", "visual_impaired", "hearing_impaired", "dub", "karaoke", "clean_effects")
_BESIDE_TITLE = re.compile(
    r"comment|descri(pt|bed)|director|karaoke|isolated|instrumental|\bAD\b|visual(ly)?.impair|hearing.impair"
    r"|kommentar|h(ö|oe)rfilm|audiodes[ck]",
    re.IGNORECASE,
)
# Slides and covers change once a second at most, videos 24 times; a track this many times slower than another is none.
_SLOWER = 5


@dataclass(frozen=True)
class Choice:
    """Streams that the user asks for: N of ffmpeg's `v:N` and `a:N`, or None for the best one."""

    video: int | None = None
    audio: int | None = None


@dataclass(frozen=True)
class Streams:
    """The chosen picture and sound as ffprobe tells of them, and their names as ffmpeg's `v:N` and `a:N`."""

    video: Stream
    audio: Stream | None
    video_name: str
    audio_name: str | None


def choose(
    path: Path,
    found: Mapping[str, Any],
    choice: Choice,
    decodable: Callable[[], frozenset[str]],
    num_packets: Callable[[], Mapping[int, int]],
) -> Streams:
    """The streams to decode. Raises MediaError where there is no picture, or no stream of the wanted number.

    `decodable`: codecs that this ffmpeg has a decoder for; `num_packets`: packets of each stream in the first seconds.
    Both are asked only where there is something to choose.
    """
    videos, audios = (_of_kind(found, kind) for kind in ("video", "audio"))
    if choice.video is not None:
        video = _numbered(path, videos, choice.video, "video", "v")
    else:
        candidates = [each for each in videos if not _has(each, _STILL)]
        if not candidates:
            only = "sound alone" if audios else "neither picture nor sound"
            raise MediaError(str(path), "probe", f"has no video stream ({only}): give a file with a picture track")
        video = (
            candidates[0]
            if len(candidates) == 1
            else _best(candidates, decodable(), _stills(candidates, num_packets()))
        )
    if choice.audio is not None:
        audio: Stream | None = _numbered(path, audios, choice.audio, "audio", "a")
    else:
        candidates = _of_programme(found, video, audios)
        audio = _best(candidates, decodable(), ()) if len(candidates) > 1 else next(iter(candidates), None)
    return Streams(video, audio, f"v:{videos.index(video)}", f"a:{audios.index(audio)}" if audio else None)


def lacks_parameters(found: Mapping[str, Any]) -> bool:
    """Whether ffprobe has not seen enough: a capture begun in mid-GOP has no frame size until its first key frame."""
    videos = [each for each in _of_kind(found, "video") if not _has(each, _STILL)]
    audios = _of_kind(found, "audio")
    return (bool(videos) and not any(map(_is_known, videos))) or (bool(audios) and not any(map(_is_known, audios)))


def _of_kind(found: Mapping[str, Any], kind: str) -> list[Stream]:
    return [each for each in found.get("streams", []) if each.get("codec_type") == kind]


def _has(stream: Stream, dispositions: Iterable[str]) -> bool:
    return any(stream.get("disposition", {}).get(each) for each in dispositions)


def _numbered(path: Path, streams: list[Stream], number: int, kind: str, letter: str) -> Stream:
    if number < len(streams):
        return streams[number]
    there = f"only {letter}:0 to {letter}:{len(streams) - 1}" if len(streams) > 1 else f"only {letter}:0"
    words = f"has no {kind} stream {letter}:{number} ({there if streams else 'none at all'}): see --{kind}-stream"
    raise MediaError(str(path), "probe", words)


def _best(streams: list[Stream], decodable: frozenset[str], stills: Iterable[int]) -> Stream:
    """The first of the best: that which decodes counts more than a purpose, a purpose more than the default flag."""

    def drawbacks(stream: Stream) -> tuple[bool, ...]:
        return (
            stream.get("codec_name") not in decodable or not _is_known(stream),
            stream["index"] in stills,
            _is_beside(stream),
            not _has(stream, ["default"]),
        )

    return min(streams, key=drawbacks)


def _is_known(stream: Stream) -> bool:
    """Whether any of its packets told what it is; a broadcast announces streams that it never sends."""
    if stream.get("codec_type") == "video":
        return bool(stream.get("width") and stream.get("height"))
    return bool(stream.get("channels")) and stream.get("sample_rate") not in (None, "0")


def _is_beside(stream: Stream) -> bool:
    """Made to be heard (or seen) beside the main one, by its flags or, where muxers set none, by its title."""
    tags = stream.get("tags", {})
    titles = (str(tags.get(name, "")) for name in ("title", "handler_name", "name"))
    return _has(stream, _BESIDE) or any(_BESIDE_TITLE.search(title) for title in titles)


def _stills(videos: list[Stream], num_packets: Mapping[int, int]) -> list[int]:
    """Places of covers and slides, of whatever codec: a video beside them has many more pictures in the same time."""
    counts = {each["index"]: num_packets.get(each["index"], 0) for each in videos}
    return [index for index, count in counts.items() if count <= 1 or count * _SLOWER <= max(counts.values())]


def _of_programme(found: Mapping[str, Any], video: Stream, audios: list[Stream]) -> list[Stream]:
    """Sound of a programme that has the picture, and what belongs to no programme; never another programme's."""
    programmes = [{each["index"] for each in one.get("streams", [])} for one in found.get("programs", [])]
    with_picture = [one for one in programmes if video["index"] in one]
    if not with_picture:
        return audios
    own, others = set.union(*with_picture), set[int]().union(*programmes)
    return [each for each in audios if each["index"] in own] or [each for each in audios if each["index"] not in others]
