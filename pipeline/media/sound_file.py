"""A sound file in place of a video's own sound, on the video's clock: `extract --audio`.

    video         picture  |0 ─────────────────────
                  sound        |0.08 ────────────          what `ffmpeg -i VIDEO TRIAL.wav` writes begins here
    TRIAL.wav                  |sample 0 ────────          at the start of the video's sound; without one, at time 0

Tested by tests/pipeline/media/test_sound_file.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import soundfile

from ...features_store.records.failures import Stage
from .ffmpeg_args import SOUND_CONTAINERS
from .probe import check_file
from .types import MediaError, VideoInfo

# Less is what codecs put before and after the sound; more is another recording, or one that lost its gaps.
_MOST_APART_S = 0.5


@dataclass(frozen=True)
class SoundFile:
    """A video whose sound is that of a file: `info` for `AudioReader`, and what a user should know (None: nothing)."""

    info: VideoInfo
    warning: str | None


def open_sound_file(path: Path, video: VideoInfo) -> SoundFile:
    """Put a wav or flac file in the place of a video's sound: its sample 0 lies where the video's own sound starts.

    Raises MediaError (stage `audio`) for what is not a sound file with something in it.
    """
    try:
        check_file(path)
        found = soundfile.info(str(path))
    except MediaError as error:
        raise MediaError(str(path), Stage.AUDIO, error.words) from error
    except soundfile.SoundFileError as error:
        raise MediaError(str(path), Stage.AUDIO, f"is not a readable sound file: {error}") from error
    container = path.suffix.lower().removeprefix(".")
    if container not in SOUND_CONTAINERS or found.format not in ("WAV", "WAVEX", "FLAC"):
        raise MediaError(str(path), Stage.AUDIO, f"holds {found.format_info}: only wav and flac are read")
    if not found.frames:
        raise MediaError(str(path), Stage.AUDIO, "has no samples")
    start_s = video.video_start_s if video.audio_start_s is None else video.audio_start_s
    info = replace(
        video,
        path=path,
        container="flac" if found.format == "FLAC" else "wav",
        audio_stream=0,
        audio_name="a:0",
        audio_channels=int(found.channels),
        video_start_s=video.video_start_s - start_s,
        audio_start_s=0.0,
        audio_duration_s=float(found.duration),
        hard_to_probe=False,
        audio_parts=(),
    )
    own_s, whose = video.audio_duration_s, "the video's own sound"
    shorter_s = 0.0 if own_s is None else own_s - found.duration
    if own_s is None:  # Matroska says how long the whole is, in which one stream may begin late or end early
        own_s, whose = video.duration_s, "the video"
    if own_s is None or max(shorter_s, found.duration - own_s) <= _MOST_APART_S:
        return SoundFile(info, None)
    lengths = f"{path.name} is {found.duration:.2f} s long, {whose} {own_s:.2f} s"
    return SoundFile(info, f"{lengths}: is it of this recording, and was it cut? (both begin together)")
