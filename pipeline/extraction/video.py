"""One video, from top to bottom: probe → picture → sound → store."""

from __future__ import annotations

import time

from ...features_store.clock import are_others, differ_much, fit_time
from ...features_store.schema import JsonValue
from ...features_store.store import FeatureStore
from ...shell.text import counted
from ..config import ExtractConfig
from ..media.probe import probe
from ..media.streams import Choice
from .assemble import person_arrays, sound_arrays
from .audio import Sound, read_sound
from .jobs import Job, Progress, Receipt
from .provenance import crops_digest, run_attributes, video_attributes
from .session import Session
from .visual import Picture, read_picture


def extract_video(job: Job, store: FeatureStore, session: Session, progress: Progress) -> Receipt:
    """Extract one trial and write it; the frames are never all in memory.

    Raises MediaError when the video cannot be read, OSError when the store cannot be written; nothing of the
    trial is left then.
    """
    started_s = time.monotonic()
    choice = Choice(session.config.video_stream, session.config.audio_stream)
    info = probe(job.video, choice, stall_timeout_s=session.stall_timeout_s)
    with store.temporary_directory() as scratch:
        picture = read_picture(info, job, session, scratch, progress)
        length = len(picture.time_s) if job.length is None else job.length
        sound = read_sound(info, picture.time_s[:length], session, scratch, progress)
        warnings = _warnings(job, picture, sound, length)
        attributes: dict[str, JsonValue] = {
            **video_attributes(info, picture.time_s),
            **run_attributes(session.config, session.fingerprint, session.weights),
            "face": job.face,
            **({} if job.crops is None else {"crops": crops_digest(job.crops)}),
            "truncated": picture.ending.truncated,
            "audio": "present" if sound.present else "absent",
            "trial_length_from": "video" if job.length is None else "annotations",
            "warnings": list(warnings),
        }
        _write(store, job, session.config, picture, sound, length, attributes)
    return Receipt(
        trial=job.trial,
        video=job.name,
        rows=length,
        frames=len(picture.time_s),
        fps=str(attributes["fps"]),
        vfr=bool(attributes["vfr"]),
        faces=picture.face_share(),
        audio=sound.present,
        truncated=picture.ending.truncated,
        seconds=time.monotonic() - started_s,
        warnings=tuple(warnings),
    )


def _write(
    store: FeatureStore,
    job: Job,
    config: ExtractConfig,
    picture: Picture,
    sound: Sound,
    length: int,
    attributes: dict[str, JsonValue],
) -> None:
    """One trial; under `all` one a person, below a group that says how many there are and is written last."""
    shared = {"time": fit_time(picture.time_s, length), **sound_arrays(sound.buffers, sound.valid, length)}
    people = [person_arrays(each, len(picture.time_s), length, config.missing_face) for each in picture.people]
    if "faces" in (store.attributes(job.trial) or {}):
        store.remove(job.trial)  # a former run's people, of whom there may have been more
    if job.face != "all":
        store.write(job.trial, {**shared, **people[0]}, attributes)
        return
    for number, arrays in enumerate(people):
        store.write(f"{job.trial}/face{number}", {**shared, **arrays}, attributes)
    store.write(job.trial, {}, {**attributes, "faces": len(people), "rows": length})


def _warnings(job: Job, picture: Picture, sound: Sound, length: int) -> list[str]:
    """What a user should know about a trial that was extracted all the same."""
    of_streams = {"picture": picture.ending.warnings, "sound": sound.warnings}
    warnings = [f"{stream}: {'; '.join(dict.fromkeys(words))}" for stream, words in of_streams.items() if words]
    frames = len(picture.time_s)
    if picture.ending.truncated:
        warnings.append(f"the picture ended in an error after {counted(frames, 'frame')}")
    if not sound.present:
        warnings.append("no audio: its features are zero rows, all invalid")
    if job.crops is not None and not job.crops.is_dir():
        warnings.append(f"there is no folder of aligned crops {job.crops}")
    if picture.face_share() == 0:
        warnings.append("no face in any frame: visual features are zero rows, all invalid")
    if differ_much(length, frames):
        more = ": train refuses it without --allow-length-difference" if are_others(length, frames) else ""
        warnings.append(f"{counted(length, 'label row')} but {counted(frames, 'decoded frame')}{more}")
    return warnings
