"""Which of a file's streams are its picture and its sound, from what ffprobe says. Starts nothing.

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
from typing import Any, Self

from ...features_store.records.failures import Stage
from .types import MediaError

Stream = Mapping[str, Any]  # as ffprobe describes it

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

    @classmethod
    def recorded(cls, attributes: Mapping[str, Any]) -> Self:
        """Those that a trial was made of, as its attributes record them (`v:1`); the best ones where they do not."""
        named = (str(attributes.get(key) or "").rpartition(":")[2] for key in ("video_stream", "audio_stream"))
        return cls(*(int(each) if each.isdigit() else None for each in named))


@dataclass(frozen=True)
class Streams:
    """The chosen picture and sound as ffprobe describes them, and their names as ffmpeg's `v:N` and `a:N`."""

    video: Stream
    audio: Stream | None
    video_name: str
    audio_name: str | None


def choose(
    path: Path,
    found: Mapping[str, Any],
    choice: Choice,
    decodable: Callable[[], frozenset[str]],
    count_packets: Callable[[], Mapping[str, Any]],
) -> Streams:
    """The streams to decode. Raises MediaError where there is no picture, or no stream of the wanted number.

    `decodable`: codecs that this ffmpeg has a decoder for; `count_packets`: ffprobe's `nb_read_packets` of each stream
    in the first seconds. Both are called only where there is something to choose.
    """
    videos, audios = (_of_kind(found, kind) for kind in ("video", "audio"))
    if choice.video is not None:
        video = _numbered(path, videos, choice.video, "video", "v")
    else:
        candidates = [each for each in videos if not _has(each, _STILL)]
        if not candidates:
            only = "sound alone" if audios else "neither picture nor sound"
            raise MediaError(str(path), Stage.PROBE, f"has no video stream ({only}): give a file with a picture track")
        video = candidates[0]
        if len(candidates) > 1:
            # No covers and slides, of whatever codec: a video beside them has many more pictures in the same time.
            read = {each["index"]: int(each.get("nb_read_packets", 0)) for each in count_packets()["streams"]}
            counts = {each["index"]: read.get(each["index"], 0) for each in candidates}
            most = max(counts.values())
            stills = [index for index, count in counts.items() if count <= 1 or count * _SLOWER <= most]
            video = _best(candidates, decodable(), stills)
    if choice.audio is not None:
        audio: Stream | None = _numbered(path, audios, choice.audio, "audio", "a")
    else:
        # Of a programme that has the picture, or else of no programme; never another programme's.
        programmes = [{each["index"] for each in one.get("streams", [])} for one in found.get("programs", [])]
        with_picture = [one for one in programmes if video["index"] in one]
        candidates = audios
        if with_picture:
            own, others = set.union(*with_picture), set[int]().union(*programmes)
            candidates = [each for each in audios if each["index"] in own]
            candidates = candidates or [each for each in audios if each["index"] not in others]
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
    raise MediaError(str(path), Stage.PROBE, words)


def _best(streams: list[Stream], decodable: frozenset[str], stills: Iterable[int]) -> Stream:
    """The first of the best: that which decodes counts more than a purpose, a purpose more than the default flag."""
    drawbacks = []
    for stream in streams:
        # Made to go with the main one, by its flags or, where muxers set none, by its title?
        tags = stream.get("tags", {})
        titles = (str(tags.get(name, "")) for name in ("title", "handler_name", "name"))
        beside = _has(stream, _BESIDE) or any(_BESIDE_TITLE.search(title) for title in titles)
        decodes = stream.get("codec_name") in decodable and _is_known(stream)
        drawbacks.append((not decodes, stream["index"] in stills, beside, not _has(stream, ["default"])))
    return streams[drawbacks.index(min(drawbacks))]


def _is_known(stream: Stream) -> bool:
    """Whether any of its packets says what it is; a broadcast announces streams that it never sends."""
    if stream.get("codec_type") == "video":
        return bool(stream.get("width") and stream.get("height"))
    return bool(stream.get("channels")) and stream.get("sample_rate") not in (None, "0")
