"""One video, from top to bottom: probe → picture → sound → store; or what is missing of it, beside what is there.

Tested by tests/pipeline/extraction: test_extract.py, test_adding.py.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from ...encoders.table import of_stream
from ...features_store.clock import are_others, differ_much, fit_time
from ...features_store.entries import CLOCK, ENTRIES, FACE_ARRAYS, FACES
from ...features_store.schema import JsonValue, RowSource
from ...features_store.store import FeatureStore
from ...shell.text import counted
from ..media.probe import probe
from ..media.streams import Choice
from .assemble import person_arrays, sound_arrays
from .audio import Sound, read_sound
from .jobs import Job, Progress, Receipt
from .provenance import crops_digest, video_attributes
from .session import Session
from .stored import check_start, read_stored
from .visual import Picture, read_picture


def extract_video(job: Job, store: FeatureStore, session: Session, progress: Progress) -> Receipt:
    """Extract one trial, or the features that it lacks, and write them; the frames are never all in memory.

    Raises MediaError when the video cannot be read, or no longer has the stored times, StoreMismatch when what is
    there cannot be read, OSError when the store cannot be written; nothing of the features is left then.
    """
    started_s = time.monotonic()
    features = job.features or session.config.features
    visual, audio = of_stream(features, "visual"), of_stream(features, "audio")
    choice = Choice(session.config.video_stream, session.config.audio_stream)
    info = probe(job.video, choice, stall_timeout_s=session.stall_timeout_s)
    stored = None
    if job.adds:
        stored = read_stored(store, job)
        check_start(info, stored, job)
    with store.temporary_directory() as scratch:
        picture = read_picture(info, job, visual, session, scratch, progress, stored)
        length = stored.rows if stored else len(picture.time_s) if job.length is None else job.length
        sound = read_sound(info, picture.time_s[:length], audio, session, scratch, progress)
        people = [
            {
                **sound_arrays(sound.buffers, sound.valid, length),
                **person_arrays(each, len(picture.time_s), length, session.config.missing_face),
            }
            for each in picture.people
        ]
        warnings = _warnings(job, picture, sound, length, bool(visual), bool(audio))
        entries = {name: entry for name, entry in session.entries.items() if name in features}
        attributes: dict[str, JsonValue] = {}
        if visual and not job.keeps_track:
            attributes |= {"face": job.face} | ({} if job.crops is None else {"crops": crops_digest(job.crops)})
        if audio or stored is None:
            attributes["audio"] = "present" if sound.present else "absent"
        if stored is None:
            whole: dict[str, JsonValue] = {
                **video_attributes(info, picture.time_s),
                "face": job.face,
                "truncated": picture.ending.truncated,
                "trial_length_from": "video" if job.length is None else "annotations",
                "warnings": list(warnings),
                **attributes,
            }
            clock = {"time": fit_time(picture.time_s, length)}
            entries |= {name: session.entries[name] for name in (CLOCK, FACES) if name in session.entries}
            _write_whole(store, job, [{**clock, **arrays} for arrays in people], {**whole, ENTRIES: entries})
        else:
            if visual and job.keeps_track:  # it stays as it is
                people = [{name: rows for name, rows in each.items() if name not in FACE_ARRAYS} for each in people]
            elif visual:
                entries[FACES] = session.entries[FACES]
            _add(store, job, stored.names, people, entries, attributes, warnings)
    now = store.attributes(job.trial) or {}
    return Receipt(
        trial=job.trial,
        video=job.name,
        rows=length,
        frames=picture.frames,
        fps=str(now.get("fps")),
        vfr=bool(now.get("vfr")),
        faces=picture.face_share(),
        audio=now.get("audio") == "present",
        truncated=bool(now.get("truncated")),
        seconds=time.monotonic() - started_s,
        features=features,
        added=job.adds,
        warnings=tuple(warnings),
    )


def _write_whole(
    store: FeatureStore, job: Job, people: list[dict[str, RowSource]], attributes: dict[str, JsonValue]
) -> None:
    """One trial; under `all` one a person, below a group that says how many there are and is written last."""
    if "faces" in (store.attributes(job.trial) or {}):
        store.remove(job.trial)  # a former run's people, of whom there may have been more
    if job.face != "all":
        store.write(job.trial, people[0], attributes)
        return
    for number, arrays in enumerate(people):
        store.write(f"{job.trial}/face{number}", arrays, attributes)
    rows = next(iter(people[0].values())).shape[0]
    store.write(job.trial, {}, {**attributes, "faces": len(people), "rows": rows})


def _add(
    store: FeatureStore,
    job: Job,
    names: tuple[str, ...],
    people: list[dict[str, RowSource]],
    entries: Mapping[str, JsonValue],
    attributes: Mapping[str, JsonValue],
    warnings: list[str],
) -> None:
    """The arrays to every trial of the video; a group of faces forgets the features first, and names them last."""
    if len(people) == 1:  # sound alone is everybody's
        people = people * len(names)
    is_group = names != (job.trial,)
    if is_group:
        for name in entries:
            store.remove_feature(job.trial, name)
    for name, arrays in zip(names, people, strict=True):
        before = (store.attributes(name) or {}).get("warnings")
        known = before if isinstance(before, list) else []
        noted = {**attributes, "warnings": [*known, *(each for each in warnings if each not in known)]}
        store.add(name, arrays, entries, noted)
    if is_group:
        store.add(job.trial, {}, entries, attributes)


def _warnings(job: Job, picture: Picture, sound: Sound, length: int, visual: bool, audio: bool) -> list[str]:
    """What a user should know about a trial that was extracted all the same."""
    of_streams = {"picture": picture.ending.warnings, "sound": sound.warnings}
    warnings = [f"{stream}: {'; '.join(dict.fromkeys(words))}" for stream, words in of_streams.items() if words]
    if picture.ending.truncated:
        warnings.append(f"the picture ended in an error after {counted(picture.frames, 'frame')}")
    if not sound.present and (audio or not job.adds):
        warnings.append("no audio: its features are zero rows, all invalid")
    if visual and job.crops is not None and not job.crops.is_dir():
        warnings.append(f"there is no folder of aligned crops {job.crops}")
    if picture.face_share() == 0:
        warnings.append("no face in any frame: visual features are zero rows, all invalid")
    if differ_much(length, picture.frames):
        more = ": train refuses it without --allow-length-difference" if are_others(length, picture.frames) else ""
        warnings.append(f"{counted(length, 'label row')} but {counted(picture.frames, 'decoded frame')}{more}")
    return warnings
