"""One video, from top to bottom: probe → streams → store; or what is missing of it, beside what is there.

Tested by tests/pipeline/extraction: test_extract.py, test_adding.py.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import replace

from ...encoders.table import of_stream
from ...features_store.clock import are_others, differ_much, fit_time
from ...features_store.entries import ENTRIES
from ...features_store.schema import JsonValue, RowSource
from ...features_store.store import FeatureStore
from ...shell.text import counted
from ..media.probe import probe
from ..media.streams import Choice
from .audio import read_sound
from .jobs import Job, Progress, Receipt
from .provenance import video_attributes
from .session import Session
from .stored import check_start, read_stored
from .streams import Clock, Reading, Stream, StreamRows
from .visual import read_picture
from .words import read_words

# In the order in which they are read: the picture is first, for its frames are the clock of all others.
STREAMS = (
    Stream("visual", "picture", read_picture),
    Stream("audio", "sound", read_sound),
    Stream("text", "words", read_words),
)


def counting_stream(features: Collection[str]) -> str:
    """The word of the first stream that these features are made from: its rows are how far a video is."""
    return next(stream.word for stream in STREAMS if of_stream(features, stream.name))


def extract_video(job: Job, store: FeatureStore, session: Session, progress: Progress) -> Receipt:
    """Extract one trial, or the features that it lacks, and write them; the frames are never all in memory.

    Raises MediaError when the video cannot be read, or no longer has the stored times, StoreMismatch when what is
    there cannot be read, OSError when the store cannot be written; nothing of the features is left then.
    """
    started_s = time.monotonic()
    features = job.features or session.config.features
    choice = Choice(session.config.video_stream, session.config.audio_stream)
    info = probe(job.video, choice, stall_timeout_s=session.stall_timeout_s)
    stored = None
    if job.adds:
        stored = read_stored(store, job)
        check_start(info, stored, job)
    with store.temporary_directory() as scratch:
        reading = Reading(info, job, session, scratch, progress, stored)
        gave: dict[str, StreamRows] = {}
        for stream in STREAMS:
            reading = replace(reading, stream=stream.word)
            gave[stream.word] = stream.read(reading, of_stream(features, stream.name))
            reading = replace(reading, clock=gave[stream.word].clock or reading.clock)
        clock = reading.clock
        warnings = _warnings(job, gave, clock)
        made = session.entries
        entries: dict[str, JsonValue] = {}
        for stream in STREAMS:
            for name in of_stream(features, stream.name):
                entries[name] = {**made[name], **gave[stream.word].files()}
        attributes: dict[str, JsonValue] = {}
        arrays: list[list[dict[str, RowSource]]] = []
        for rows in gave.values():
            attributes |= rows.attributes()
            entries |= {name: dict(session.entries[name]) for name in rows.sources() if name in session.entries}
            arrays.insert(0, rows.arrays(clock.rows))  # a store lists the picture's last
        people: list[dict[str, RowSource]] = []
        for number in range(max(map(len, arrays))):
            of_person = (each[number if len(each) > 1 else 0] for each in arrays)
            people.append({name: rows for each in of_person for name, rows in each.items()})
        if stored is None:
            whole: dict[str, JsonValue] = {
                **video_attributes(info, clock.time_s),
                "face": job.face,
                "truncated": clock.truncated,
                "trial_length_from": "video" if job.length is None else "annotations",
                "warnings": list(warnings),
                **attributes,
            }
            times = {"time": fit_time(clock.time_s, clock.rows)}
            _write_whole(store, job, [{**times, **each} for each in people], {**whole, ENTRIES: entries})
        else:
            _add(store, job, stored.names, people, entries, attributes, warnings)
    now = store.attributes(job.trial) or {}
    return Receipt(
        trial=job.trial,
        video=job.name,
        rows=clock.rows,
        frames=clock.frames,
        fps=str(now.get("fps")),
        vfr=bool(now.get("vfr")),
        faces=gave["picture"].share(),
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
    """One trial; under `all` one per person, below a group that says how many there are and is written last."""
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


def _warnings(job: Job, gave: Mapping[str, StreamRows], clock: Clock) -> list[str]:
    """What a user should know about a trial that was extracted all the same."""
    warnings = [f"{word}: {'; '.join(dict.fromkeys(rows.said))}" for word, rows in gave.items() if rows.said]
    warnings += [remark for rows in gave.values() for remark in rows.remarks()]
    if differ_much(clock.rows, clock.frames):
        more = ": train refuses it without --allow-length-difference" if are_others(clock.rows, clock.frames) else ""
        warnings.append(f"{counted(clock.rows, 'label row')} but {counted(clock.frames, 'decoded frame')}{more}")
    return warnings
