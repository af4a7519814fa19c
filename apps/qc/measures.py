"""What there is to measure in a trial: faces, gaps, silence, lengths, and sound against picture; in slices of rows.

    faces     share of the frames with a face              of `face_score`
    gap       longest time without one, s
    silence   share of the frames without any sound        of `logmel`, else of the video, else of masks
    length    label rows less frames
    sync      by how much the sound is late, s             of crops and `logmel`, else of the video

Tested by tests/apps/qc/test_qc.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...encoders.table import SMALL_CROP_PX, TABLE
from ...features_store.entries import FACE_ARRAYS
from ...features_store.schema import FACE_SCORE, plain_name
from ...features_store.trial import Trial
from ...pipeline.audio.logmel import patches
from ...pipeline.faces.crops import SeenFaces, known_faces
from ...pipeline.media.probe import probe
from ...pipeline.media.readers import AudioReader, FrameReader, prefetch
from ...pipeline.media.streams import Choice
from ...pipeline.media.types import MediaError, VideoInfo
from ...pipeline.runs.discover import video_of, walk_videos
from .sync import LEVEL_FRAMES, Column, Offset, darkness, find_offset, vowel_level

_ROWS_AT_ONCE = 256
_CROPS = ("crop48", "crop112")
# Where in a patch the sound at a row's time is, by how patches lie, and how much later than the row its middle is.
_FIRST_FRAME = {"start": 0, "center": 48, "end": 96 - LEVEL_FRAMES}
_PATCH_S = {"start": 0.0, "center": -0.48, "end": -0.96}
_PATCH_LONG_S = 0.96
_MIDDLE_S = (0.01 * (LEVEL_FRAMES - 1) + 0.025) / 2
# ln of a thousandth of what a full-scale sine gives its band: -60 dB.
_SILENT = float(np.log(0.1 + 0.01))


@dataclass(frozen=True)
class Measured:
    """A trial in numbers; None where neither the store nor a video says it. `notes`: what could not be read.

    `faces`: the share of its frames with a face, `silence`: of its rows with nothing to be heard; both in [0, 1].
    """

    trial: str
    frames: int
    seconds: float
    faces: float | None
    gap_s: float | None
    silence: float | None
    length_difference: int | None
    sync: Offset | None
    checked_sync: bool
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The measures for `--json`."""
        sync = {"verdict": "not checked"} if not self.checked_sync else {"verdict": "not sure"}
        if self.sync is not None:
            rounded = {name: round(value, 4) for name, value in vars(self.sync).items()}
            sync = {"verdict": self.sync.verdict, **rounded}
        return {**vars(self), "sync": sync, "notes": list(self.notes)}


def find_videos(folder: Path) -> dict[str, Path]:
    """The videos below a folder by their plain names, with their folders and without; what is ambiguous is left out."""
    found: dict[str, list[Path]] = {}
    for path in walk_videos(folder):
        stem = plain_name(path.relative_to(folder).with_suffix("").as_posix())
        for name in {stem, stem.rpartition("/")[2]}:
            found.setdefault(name, []).append(path)
    return {name: paths[0] for name, paths in found.items() if len(paths) == 1}


def measure(
    trial: Trial, videos: Mapping[str, Path] | None, with_sync: bool = True, stall_timeout_s: float = 60.0
) -> Measured:
    """Measure a trial of a store; its video among `videos` is decoded for what the store does not hold, if it is there.

    `videos`: None where nobody has named a folder. Where sound was given beside it (`extract --audio`), its own is left
    alone.

    Raises StoreMismatch where rows are broken. What is wrong with a video is a note.
    """
    attributes, rows = trial.attributes, trial.rows
    frames = attributes.get("frames_decoded")
    frames = frames if isinstance(frames, int) else rows
    time_s = trial.time_s
    step_s = float(np.median(np.diff(time_s))) if len(time_s) > 1 else 0.0
    faces = gap_s = None
    if FACE_SCORE in trial:
        found = trial.read(FACE_SCORE)[: min(frames, rows)] > 0
        faces, gap_s = float(found.mean()) if len(found) else 0.0, longest_gap_s(time_s[: len(found)], found, step_s)

    notes: list[str] = []
    info = None
    entries = trial.entries
    crops = next((name for name in _CROPS if name in trial.features), None)
    has_logmel, has_sound = "logmel" in trial.features, attributes.get("audio") != "absent"
    wants_crops = with_sync and crops is None and all(name in trial for name in FACE_ARRAYS) and has_sound
    is_own = not any("audio_file" in entry for entry in entries.values())
    wants_sound = not has_logmel and has_sound and is_own
    if videos is not None and (wants_sound or (wants_crops and has_logmel)):
        info, why = _video(trial, videos, stall_timeout_s)
        notes += [why] if why else []
    try:
        sound = None
        if has_logmel:
            sound = _stored_sound(trial)
        elif wants_sound and info is not None and info.audio_stream is not None:
            sound = _decoded_sound(info, time_s, stall_timeout_s)
        mouth = None
        if with_sync and has_sound and sound is not None:
            if crops is not None:
                mouth = _stored_mouth(trial, crops)
            elif info is not None and wants_crops:
                mouth = _decoded_mouth(info, trial, stall_timeout_s)
    except MediaError as error:
        notes.append(f"its video cannot be used: {error.words}")
        sound = mouth = None
    sync = None
    if mouth is not None and sound is not None:
        middles_s = time_s[: len(mouth)] + step_s / 2  # a frame is light from its own time to the next one's
        sync = find_offset(middles_s, mouth, sound.time_s, sound.level, sound.real)
    return Measured(
        trial=trial.name,
        frames=frames,
        seconds=float(time_s[-1] - time_s[0]) + step_s if len(time_s) else 0.0,
        faces=faces,
        gap_s=gap_s,
        silence=_silence(trial, sound, has_sound),
        length_difference=rows - frames if "frames_decoded" in attributes else None,
        sync=sync,
        checked_sync=mouth is not None,
        notes=tuple(notes),
    )


def longest_gap_s(time_s: Column, found: NDArray[np.bool_], step_s: float) -> float:
    """The longest time without a face, from the first frame without one to the next with one, or to the end; s.

    `time_s` [T] of the frames, `found` bool [T]: which have a face; `step_s`: how long the last one is shown.
    """
    if not len(found) or found.all():
        return 0.0
    edges = np.flatnonzero(np.diff((~found).astype(np.int8), prepend=0, append=0))
    ends_s = np.append(time_s, time_s[-1] + step_s)
    return float((ends_s[edges[1::2]] - ends_s[edges[::2]]).max())


@dataclass(frozen=True)
class _Sound:
    """At `time_s` [M]: the `level` of vowels, whether the sound is `real`, and whether there is nothing to be heard."""

    time_s: Column
    level: Column
    real: NDArray[np.bool_]
    silent: NDArray[np.bool_]


def _silence(trial: Trial, sound: _Sound | None, has_sound: bool) -> float | None:
    """Share of the rows with nothing to be heard; without levels that of the rows without real sound."""
    if not has_sound:
        return 1.0
    if sound is not None:
        return float((sound.silent | ~sound.real).mean())
    names = [name for name in trial.features if name in TABLE and TABLE[name].stream == "audio"]
    heard = [
        _in_patches(trial, name, trial.time_s) if TABLE[name].view == "patch" else trial.valid(name) for name in names
    ]
    return float(1 - np.stack(heard).any(axis=0).mean()) if heard else None


def _align_of(trial: Trial, name: str) -> str:
    return str((trial.entries.get(name, {}).get("settings") or {}).get("audio_align", "start"))


def _in_patches(trial: Trial, name: str, at_s: Column) -> NDArray[np.bool_]:
    """Which moments `at_s` [M], s, lie in a patch of a feature that is all real.

    A row is valid where its whole patch is, so sound goes on for up to a second after the last such row.
    """
    starts_s = trial.time_s[trial.valid(name)] + _PATCH_S[_align_of(trial, name)]
    before = np.searchsorted(starts_s, at_s, side="right") - 1
    real = before >= 0
    real[real] = at_s[real] < starts_s[before[real]] + _PATCH_LONG_S
    return np.asarray(real)


def _stored_sound(trial: Trial) -> _Sound:
    align = _align_of(trial, "logmel")
    first = _FIRST_FRAME[align]
    parts = []
    for at in range(0, trial.rows, _ROWS_AT_ONCE):
        rows = trial.window("logmel", at, min(at + _ROWS_AT_ONCE, trial.rows))
        parts.append(rows[:, first : first + LEVEL_FRAMES])
    frames = np.concatenate(parts) if parts else np.zeros((0, LEVEL_FRAMES, 64), np.float32)
    late_s = _PATCH_S[align] + 0.01 * first + _MIDDLE_S
    at_s = trial.time_s + late_s
    return _Sound(at_s, vowel_level(frames), _in_patches(trial, "logmel", at_s), frames.max(axis=(1, 2)) < _SILENT)


def _decoded_sound(info: VideoInfo, time_s: Column, stall_timeout_s: float) -> _Sound:
    parts = []
    with AudioReader(info, stall_timeout_s=stall_timeout_s) as audio:
        for batch in patches(audio, time_s, "start", _ROWS_AT_ONCE):
            parts.append(batch.frames[batch.firsts[:, None] + np.arange(LEVEL_FRAMES)])
        spans = audio.real_spans()
    frames = np.concatenate(parts) if parts else np.zeros((0, LEVEL_FRAMES, 64), np.float32)
    times_s = time_s[: len(frames)]
    real = np.zeros(len(times_s), np.bool_)
    for start_s, end_s in spans:
        real |= (times_s >= start_s) & (times_s < end_s)
    # Frames past the end of the sound have nothing to be heard.
    past = len(time_s) - len(frames)
    silent = np.append(frames.max(axis=(1, 2), initial=-np.inf) < _SILENT, np.ones(past, np.bool_))
    level = np.append(vowel_level(frames), np.full(past, np.log(0.01)))
    return _Sound(time_s + _MIDDLE_S, level, np.append(real, np.zeros(past, np.bool_)), silent)


def _stored_mouth(trial: Trial, crops: str) -> Column:
    valid = trial.valid(crops)
    mouth = np.full((trial.rows, 2), np.nan)
    for at in range(0, trial.rows, _ROWS_AT_ONCE):
        stop = min(at + _ROWS_AT_ONCE, trial.rows)
        mouth[at:stop] = darkness(trial.window(crops, at, stop))
    mouth[~valid] = np.nan
    return mouth


def _decoded_mouth(info: VideoInfo, trial: Trial, stall_timeout_s: float) -> Column:
    boxes, landmarks, scores = (trial.read(name) for name in FACE_ARRAYS)
    placed = np.isfinite(landmarks).all(axis=(1, 2))  # those of the organiser's crops are not
    track = SeenFaces(boxes, landmarks, np.where(placed, scores, 0).astype(np.float32))
    parts: list[Column] = []
    with (
        FrameReader(info, stall_timeout_s=stall_timeout_s) as reader,
        closing(prefetch(reader, reader.kill)) as batches,
    ):
        for (person,) in known_faces(batches, [track], [SMALL_CROP_PX]):
            rows = np.full((len(person.seen.scores), 2), np.nan)
            if len(person.views[SMALL_CROP_PX]):
                rows[person.seen.found] = darkness(person.views[SMALL_CROP_PX])
            parts.append(rows)
    mouth = np.concatenate(parts)
    if len(mouth) < min(trial.rows, len(scores)):
        words = f"{len(mouth)} frames decode, but the store has {trial.rows} rows"
        raise MediaError(str(info.path), "video", words)
    return mouth[: trial.rows]


def _video(trial: Trial, videos: Mapping[str, Path], stall_timeout_s: float) -> tuple[VideoInfo | None, str]:
    """The video of a trial as it is now; or why there is none that can be used."""
    path = next((videos[name] for name in _names(trial.name) if name in videos), None)
    source = trial.attributes.get("source")
    if path is None:
        return None, "there is no video of this name in --videos"
    if isinstance(source, dict) and source.get("size") not in (None, path.stat().st_size):
        return None, f"{path.name} in --videos is not the file that the trial was made of"
    try:
        return probe(path, Choice.recorded(trial.attributes), stall_timeout_s=stall_timeout_s), ""
    except MediaError as error:
        return None, f"its video cannot be used: {error.words}"


def _names(trial: str) -> Iterator[str]:
    """What a trial's video may be called: with its folders and without, with its side and its face and without."""
    base = trial.rpartition("/face")[0] or trial
    for name in dict.fromkeys((trial, base, video_of(base))):
        plain = plain_name(name)
        yield from (plain, plain.rpartition("/")[2])


def sync_share(measured: Sequence[Measured]) -> tuple[int, int]:
    """How many trials' sync was checked, and of how many there is a sure offset."""
    checked = [each for each in measured if each.checked_sync]
    return len(checked), sum(each.sync is not None and each.sync.verdict == "sure" for each in checked)
