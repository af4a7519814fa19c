"""What a sync check compares, of the store or else of the video: how dark the mouth is and how loud the voice.

    crop48, crop112   ── else the video's frames, cut where the landmarks are ──►  darkness [T, 2], NaN without a face
    logmel            ── else the video's sound ─────────────────────────────────►  level [M] of the vowels

Tested by tests/apps/qc/test_qc.py and test_odd.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...encoders.table import SMALL_CROP_PX
from ...encoders.views import PATCH_BANDS
from ...features_store.clock import PATCH_FRAMES, usual_step_s
from ...features_store.entries import FACE_ARRAYS
from ...features_store.records.failures import Stage
from ...features_store.schema import TIME, StoreMismatch
from ...features_store.trial import Trial
from ...pipeline.audio.logmel import patches
from ...pipeline.faces.crops import SeenFaces, known_faces
from ...pipeline.media.readers import AudioReader, FrameReader, prefetch
from ...pipeline.media.types import MediaError, VideoInfo
from ...shell.text import counted
from .sync import LEVEL_FRAMES, Column, Incomparable, Offset, darkness, find_offset, vowel_level

Spans = Sequence[tuple[int, int]]

_ROWS_AT_ONCE = 256
_QUICK_S, _PIECES = 60.0, 4
_CROPS = ("crop48", "crop112")
# Where in a patch the sound at a row's time is, by how patches lie, and how much later than the row its middle is.
_FIRST_FRAME = {"start": 0, "center": 48, "end": 96 - LEVEL_FRAMES}
_PATCH_S = {"start": 0.0, "center": -0.48, "end": -0.96}
_PATCH_LONG_S = 0.96
_MIDDLE_S = (0.01 * (LEVEL_FRAMES - 1) + 0.025) / 2
# ln of a thousandth of what a full-scale sine gives its band: -60 dB.
_SILENT = float(np.log(0.1 + 0.01))


def quick_sync(trial: Trial, info: VideoInfo | None, notes: list[str]) -> Offset | Incomparable | None:
    """The offset by a minute of a trial, in four pieces, or by its first minute where its video must be decoded.

    None where the store lacks what it takes and there is no video. Raises StoreMismatch where rows are broken, or
    MediaError where the video is.
    """
    time_s = times_of(trial)
    if not len(time_s):
        return Incomparable("no frames")
    if not has_sound(trial):
        return Incomparable("no sound")
    is_stored = holds_sound(trial) and crops_of(trial) is not None
    whole_s = time_s[-1] - time_s[0]
    pieces = _PIECES if is_stored and whole_s > _QUICK_S else 1
    long_s = _QUICK_S / pieces
    starts_s = time_s[0] + np.linspace(0, whole_s - long_s, pieces)
    spans = [(int(a), int(b)) for a, b in np.searchsorted(time_s, np.stack([starts_s, starts_s + long_s], axis=1))]
    return sync_of(trial, info, spans, sound_of(trial, info, spans), notes)


def sync_of(
    trial: Trial,
    info: VideoInfo | None,
    spans: Spans,
    sound: Sound | None,
    notes: list[str],
    stall_timeout_s: float = 60.0,
) -> Offset | Incomparable | None:
    """The offset of a trial by the rows of `spans`, and what is odd to its `notes`; None where it cannot be checked."""
    if not has_sound(trial):
        return Incomparable("no sound")
    if sound is None:
        return None
    mouth = None
    if (crops := crops_of(trial)) is not None:
        mouth = stored_mouth(trial, crops, spans)
    elif info is not None and all(name in trial for name in FACE_ARRAYS):
        mouth = _decoded_mouth(info, trial, spans, notes, stall_timeout_s)
    if mouth is None:
        return None
    time_s = trial.time_s
    middles_s = time_s + usual_step_s(time_s) / 2  # a frame is light from its own time to the next one's
    return find_offset(middles_s, mouth, sound.time_s, sound.level, sound.real)


def has_sound(trial: Trial) -> bool:
    """Whether a trial was made of sound too."""
    return trial.attributes.get("audio") != "absent"


def has_own_sound(trial: Trial) -> bool:
    """Whether the sound of a trial is its video's, and not a file's that was given beside it."""
    return not any("audio_file" in entry for entry in trial.entries.values())


def holds_sound(trial: Trial) -> bool:
    """Whether the store says how loud a trial is."""
    return "logmel" in trial.features


def crops_of(trial: Trial) -> str | None:
    """The feature that shows the mouths of a trial; None where the store does not."""
    return next((name for name in _CROPS if name in trial.features), None)


def times_of(trial: Trial) -> Column:
    """The frames' times, s [T]. Raises StoreMismatch where there are none, or where they do not rise."""
    if TIME not in trial:
        raise StoreMismatch("there are no times")
    time_s = trial.time_s
    if not np.isfinite(time_s).all() or (np.diff(time_s) <= 0).any():
        raise StoreMismatch("the times do not rise")
    return time_s


@dataclass(frozen=True)
class Sound:
    """At `time_s` [M]: the `level` of vowels, whether the sound is `real`, and whether there is nothing to be heard."""

    time_s: Column
    level: Column
    real: NDArray[np.bool_]
    silent: NDArray[np.bool_]


def _align_of(trial: Trial, name: str) -> str:
    return str((trial.entries.get(name, {}).get("settings") or {}).get("audio_align", "start"))


def in_patches(trial: Trial, name: str, at_s: Column) -> NDArray[np.bool_]:
    """Which moments `at_s` [M], s, lie in a patch of a feature that is all real.

    A row is valid where its whole patch is, so sound goes on for up to a second after the last such row.
    """
    starts_s = trial.time_s[trial.valid(name)] + _PATCH_S[_align_of(trial, name)]
    before = np.searchsorted(starts_s, at_s, side="right") - 1
    real = before >= 0
    real[real] = at_s[real] < starts_s[before[real]] + _PATCH_LONG_S
    return np.asarray(real)


def sound_of(trial: Trial, info: VideoInfo | None, spans: Spans, stall_timeout_s: float = 60.0) -> Sound | None:
    """The sound at the rows of `spans`, of the store or else of the video; None where neither has it."""
    if holds_sound(trial):
        return stored_sound(trial, spans)
    if info is None or info.audio_stream is None or not has_sound(trial) or not has_own_sound(trial):
        return None
    return _decoded_sound(info, trial.time_s[: max(stop for _, stop in spans)], stall_timeout_s)


def stored_sound(trial: Trial, spans: Spans) -> Sound:
    """The sound at the rows of `spans`, of the feature `logmel`. Raises StoreMismatch where rows are broken."""
    align = _align_of(trial, "logmel")
    first = _FIRST_FRAME[align]
    parts = [np.zeros((0, LEVEL_FRAMES, PATCH_BANDS), np.float32)]
    if trial["logmel"].ndim != 3 or trial["logmel"].shape[1:] != (PATCH_FRAMES, PATCH_BANDS):
        raise StoreMismatch(f"logmel has rows of the shape {trial['logmel'].shape[1:]}")
    for start, stop in _pieces(spans):
        parts.append(trial.window("logmel", start, stop)[:, first : first + LEVEL_FRAMES])
    frames = np.concatenate(parts)
    time_s = np.concatenate([trial.time_s[start:stop] for start, stop in spans])
    at_s = time_s + _PATCH_S[align] + 0.01 * first + _MIDDLE_S
    silent = frames.max(axis=(1, 2)) < _SILENT
    return Sound(at_s, vowel_level(frames), in_patches(trial, "logmel", at_s), silent)


def _pieces(spans: Spans) -> Iterator[tuple[int, int]]:
    for start, stop in spans:
        for at in range(start, stop, _ROWS_AT_ONCE):
            yield at, min(at + _ROWS_AT_ONCE, stop)


def _decoded_sound(info: VideoInfo, time_s: Column, stall_timeout_s: float) -> Sound:
    parts = []
    with AudioReader(info, until_s=float(time_s[-1]) + 2 * _PATCH_LONG_S, stall_timeout_s=stall_timeout_s) as audio:
        for batch in patches(audio, time_s, "start", _ROWS_AT_ONCE):
            parts.append(batch.frames[batch.firsts[:, None] + np.arange(LEVEL_FRAMES)])
        spans = audio.real_spans()
    frames = np.concatenate(parts) if parts else np.zeros((0, LEVEL_FRAMES, PATCH_BANDS), np.float32)
    times_s = time_s[: len(frames)]
    real = np.zeros(len(times_s), np.bool_)
    for start_s, end_s in spans:
        real |= (times_s >= start_s) & (times_s < end_s)
    # Frames past the end of the sound have nothing to be heard.
    past = len(time_s) - len(frames)
    silent = np.append(frames.max(axis=(1, 2), initial=-np.inf) < _SILENT, np.ones(past, np.bool_))
    level = np.append(vowel_level(frames), np.full(past, np.log(0.01)))
    return Sound(time_s + _MIDDLE_S, level, np.append(real, np.zeros(past, np.bool_)), silent)


def stored_mouth(trial: Trial, crops: str, spans: Spans) -> Column:
    """How dark the mouth is in stored crops, [T, 2]; NaN without a face, and outside of the rows of `spans`.

    Raises StoreMismatch where the rows are not pictures, or broken.
    """
    valid, shape = trial.valid(crops), trial[crops].shape[1:]
    if len(shape) != 3 or shape[0] != shape[1] or shape[2] != 3:
        raise StoreMismatch(f"{crops} has rows of the shape {shape}")
    mouth = np.full((trial.rows, 2), np.nan)
    for start, stop in _pieces(spans):
        mouth[start:stop] = darkness(trial.window(crops, start, stop))
    mouth[~valid] = np.nan
    return mouth


def _decoded_mouth(info: VideoInfo, trial: Trial, spans: Spans, notes: list[str], stall_timeout_s: float) -> Column:
    """The same of the video, cut where the store's landmarks are, from the first row to the last of `spans`."""
    last = max(stop for _, stop in spans)
    boxes, landmarks, scores = (trial.read(name)[:last] for name in FACE_ARRAYS)
    placed = np.isfinite(landmarks).all(axis=(1, 2))  # those of the organiser's crops are not
    track = SeenFaces(boxes, landmarks, np.where(placed, scores, 0).astype(np.float32))
    mouth, row = np.full((trial.rows, 2), np.nan), 0
    with (
        FrameReader(info, stall_timeout_s=stall_timeout_s) as reader,
        closing(prefetch(reader, reader.kill)) as batches,
    ):
        for (person,) in known_faces(batches, [track], [SMALL_CROP_PX]):
            found = np.flatnonzero(person.seen.found) + row
            if len(found):
                mouth[found] = darkness(person.views[SMALL_CROP_PX])
            row += len(person.seen.scores)
            if row >= last:
                break
    if row < last:
        words = f"{row} frames decode, but the store has {trial.rows} rows"
        raise MediaError(str(info.path), Stage.VIDEO, words)
    if lost := int((scores > 0).sum() - np.isfinite(mouth).all(axis=1).sum()):
        notes.append(
            f"{counted(lost, 'row')} with a face whose landmarks cannot be used: points that coincide or are not known"
        )
    return mouth
