"""Which trials are still to do, and how they are shared out between machines. Decodes nothing.

Tested by tests/pipeline/runs/test_plan.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...batch.sharding import balanced
from ...encoders.table import of_stream
from ...encoders.weights.resolve import WeightSource
from ...features_store.disk.atomic import sha256_of
from ...features_store.entries import CLOCK, FACES, entries_of
from ...features_store.records.failures import FailureRecord, outstanding, read_failures
from ...features_store.schema import JsonValue
from ...features_store.store import FeatureStore
from ...shell.text import check_known, counted, preview
from ..config import ExtractConfig
from ..extraction.jobs import Failure, Job
from ..extraction.provenance import UNRECORDED, crops_digest, has_crops, made_differently, wanted_entries, words_digest
from ..media.probe import probe
from ..media.types import MediaError
from .discover import Sources, check_sources, file_identity, find_jobs

_PROBES_AT_ONCE = 8


@dataclass(frozen=True)
class Standing:
    """What a run has to make of a trial, by what the store holds of it.

    `features`: those to make (none: it is done); `adds`: to a trial that is there, else it is made whole;
    `keeps_track`: with its boxes and landmarks; `differences`: what those that are there were made with otherwise, by
    name with both values; `lost`: features that nobody asks for, but that hang on what would be made anew.
    """

    features: tuple[str, ...] = ()
    adds: bool = False
    keeps_track: bool = False
    differences: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class Replaced:
    """A done trial of which this run would make something anew: what, and what differs."""

    trial: str
    features: tuple[str, ...]
    differences: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """Jobs to do, trials already done, failures known before decoding, former failures left alone, and notes.

    `trials`: all that the videos make, whoever does them; `overwrite`: do the jobs even where the store has them;
    `replaced`: those of the jobs that the store holds, made otherwise; `losing`: {trial: features} of those that hang
    on what would be made anew, and are not asked for;
    `failures_known`: how many lines `failures.jsonl` had, so that newer ones can be recognised.
    """

    jobs: tuple[Job, ...]
    done: tuple[str, ...]
    failures: tuple[Failure, ...]
    failed_before: tuple[FailureRecord, ...]
    notes: tuple[str, ...]
    trials: tuple[str, ...]
    overwrite: bool
    failures_known: int
    replaced: tuple[Replaced, ...] = ()
    losing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def features(self) -> tuple[str, ...]:
        """Those that any job makes, in the order in which they were asked for."""
        return tuple(dict.fromkeys(name for job in self.jobs for name in job.features))


@dataclass(frozen=True)
class Selection:
    """Which of the jobs found are wanted: these trials (None: all), part I of N, done and failed ones too or not …"""

    trials: tuple[str, ...] | None = None
    shard: tuple[int, int] = (0, 1)
    overwrite: bool = False
    retry_failed: bool = False
    limit: int | None = None


def make_plan(
    sources: Sources,
    config: ExtractConfig,
    store: FeatureStore | None,
    selection: Selection,
    weights: Mapping[str, WeightSource] | None = None,
) -> Plan:
    """Leave out what the store (None: a new one) has done with these settings and weights, and what failed before.

    `weights` None: whatever the store has. Raises ValueError where no trial has the labels or crops that were named,
    or where a chosen trial is not there.
    """
    jobs, failures, notes = find_jobs(sources, config)
    notes += check_sources(sources, jobs, config)
    trials = tuple(job.trial for job in jobs)
    if selection.trials is not None:
        check_known("trial", selection.trials, [*trials, *(failure.trial for failure in failures)])
        jobs = [job for job in jobs if job.trial in selection.trials]
        failures = [failure for failure in failures if failure.trial in selection.trials]
    known = len(read_failures(store)) if store is not None else 0
    former: dict[str, FailureRecord] = {}
    if store is not None and not selection.retry_failed and not selection.overwrite:
        former = {record.trial: record for record in outstanding(store)}
    todo: list[Job] = []
    done, left, replaced, losing = [], [], {}, {}
    for job in shard_of(jobs, *selection.shard):
        stands = Standing(config.features)
        if store is not None:
            stands = standing(store, job, config, weights, selection.overwrite)
        if not stands.features:
            done.append(job.trial)
        elif job.trial in former and same_file(job.video, former[job.trial]):
            left.append(former[job.trial])
        else:
            todo.append(job_for(job, stands))
            if stands.differences:
                replaced[job.trial] = Replaced(job.trial, stands.features, stands.differences)
            if stands.lost:
                losing[job.trial] = stands.lost
    todo = todo[: selection.limit]
    # What planning itself finds is the same for every shard: the first one reports it, and only once.
    found = failures if selection.shard[0] == 0 else []
    known_before = [each for each in found if each.trial in former and former[each.trial].reason == each.reason]
    left += [former[each.trial] for each in known_before]
    return Plan(
        jobs=tuple(todo),
        done=tuple(done),
        failures=tuple(each for each in found if each not in known_before),
        failed_before=tuple(left),
        notes=tuple(notes),
        trials=trials,
        overwrite=selection.overwrite,
        failures_known=known,
        replaced=tuple(replaced[job.trial] for job in todo if job.trial in replaced),
        losing={job.trial: losing[job.trial] for job in todo if job.trial in losing},
    )


def shard_of(jobs: list[Job], index: int, count: int) -> list[Job]:
    """Part `index` of `count`: disjoint, complete, the same on every machine, balanced by duration.

    What is done already does not count, since the other parts may be under way. Raises ValueError for a part that there
    is not, MediaError where a video does not answer.
    """
    if not 0 <= index < count:
        raise ValueError(f"shard I/N needs 0 ≤ I < N, got {index}/{count}")
    if count == 1:
        return sorted(jobs, key=lambda job: job.trial)
    mine = set(balanced(weights_ms(jobs), count)[index])
    return sorted((job for job in jobs if job.trial in mine), key=lambda job: job.trial)


def weights_ms(jobs: Sequence[Job]) -> dict[str, int]:
    """Trial → duration in ms; a video that does not say it counts by its size, at the rate of those that do.

    In whole numbers, and from the files alone, so that every machine comes to the same. Raises MediaError where
    ffprobe gives no answer in time: a guess would split the work otherwise than the other machines do.
    """
    paths = sorted({job.video for job in jobs})
    with ThreadPoolExecutor(_PROBES_AT_ONCE) as pool:
        durations = dict(zip(paths, pool.map(_duration_ms, paths), strict=True))
    sizes = {job.video: job.size_bytes for job in jobs}
    known_ms = sum(duration for duration in durations.values() if duration)
    known_bytes = sum(sizes[path] for path in paths if durations[path])
    weights = {}
    for job in jobs:
        by_size = job.size_bytes * known_ms // known_bytes if known_ms and known_bytes else job.size_bytes
        weights[job.trial] = durations[job.video] or by_size
    return weights


def _duration_ms(path: Path) -> int | None:
    try:
        duration_s = probe(path).duration_s
    except MediaError as error:
        if error.is_transient:
            raise
        return None
    return round(duration_s * 1000) if duration_s and duration_s > 0 else None


def replacing_line(replaced: Sequence[Replaced]) -> str:
    """How many done trials would have features made anew, which, and why."""
    names = preview([each.trial for each in replaced])
    differences = Counter(line for each in replaced for line in each.differences)
    reasons = [
        line if count == len(replaced) else f"{line} ({count} of them)" for line, count in differences.most_common(6)
    ]
    if len(differences) > len(reasons):
        reasons.append("and others")
    features = preview(dict.fromkeys(name for each in replaced for name in each.features))
    return f"{features} of {counted(len(replaced), 'done trial')} would be replaced ({names}): {'; '.join(reasons)}"


def losing_line(losing: Mapping[str, Sequence[str]]) -> str:
    """Which features would be left of a video, a length or a face track that is no longer the trial's; what to do."""
    lost = list(dict.fromkeys(name for names in losing.values() for name in names))
    them = "it" if len(lost) == 1 else "them"
    return (
        f"{counted(len(losing), 'trial')} ({preview(losing)}) would be made anew, from other frames or another face "
        f"track than {preview(lost)}, which would be left behind: name {them} in --features too, or take {them} out by "
        f"`avfuse remove --feature {lost[0]}`"
    )


def job_for(job: Job, stands: Standing) -> Job:
    """The job of what is left to make."""
    return replace(job, features=stands.features, adds=stands.adds, keeps_track=stands.keeps_track)


def standing(
    store: FeatureStore,
    job: Job,
    config: ExtractConfig,
    weights: Mapping[str, WeightSource] | None,
    overwrite: bool = False,
) -> Standing:
    """What is to be made of the trial that a job names; `overwrite`: all features of the run, also what is done.

    A trial that is not there or not whole, and one of another content of the video, is made without asking.
    """
    attributes = store.attributes(job.trial)
    if attributes is None:
        return Standing(config.features)
    stored = entries_of(attributes)
    others = tuple(name for name in stored if name not in (CLOCK, FACES, *config.features))
    source = attributes.get("source")
    whole = Standing(config.features, lost=others)
    is_other_video = isinstance(source, dict) and not _same_content(job.video, source)
    if is_other_video or not store.has_all_faces(job.trial):
        return whole
    wanted = wanted_entries(config, weights, stored)
    for name in config.text:
        wanted[name]["words"] = words_digest(job.words)
    if differences := _frames_differ(attributes, job, config, stored, wanted):
        return replace(whole, differences=() if overwrite else tuple(dict.fromkeys(differences)))

    # The face track, if there is one: on it hang all visual features.
    of_track, unasked = [], False
    if config.visual and FACES in stored:
        of_track = made_differently(FACES, stored, wanted)
        face = attributes.get("face")
        if face != job.face and not of_track:
            of_track.append(f"face: {face} in the store, {job.face} now")
        if job.crops is not None and attributes.get("crops") != crops_digest(job.crops) and not of_track:
            unasked = has_crops(job.crops)  # the organiser's next batch
            of_track += [] if unasked else ["crops: some in the store, none now (is --aligned right?)"]
    is_group = "faces" in attributes
    if is_group and (of_track or unasked):  # who its trials are hangs on it too
        return replace(whole, differences=() if overwrite else tuple(of_track))
    hanging = tuple(name for name in others if stored[name].get("made_from") == FACES)
    track_anew = bool(of_track) or unasked or (overwrite and not hanging and not is_group)
    features, differs = [], dict.fromkeys(of_track)
    for name in config.features:
        if overwrite or name not in stored or (name in config.visual and (of_track or unasked)):
            features.append(name)
        elif of_name := made_differently(name, stored, wanted) or _other_sound(job, stored[name]):
            features.append(name)
            differs |= dict.fromkeys(of_name)
        elif stored[name].get("words") is None and wanted[name].get("words") is not None:
            features.append(name)  # its file came later
    visual = of_stream(features, "visual")
    if overwrite and not others:
        return Standing(config.features)
    return Standing(
        tuple(features),
        adds=True,
        keeps_track=bool(visual) and FACES in stored and not track_anew,
        differences=() if overwrite else tuple(differs),
        lost=hanging if visual and (of_track or unasked) else (),
    )


def _frames_differ(
    attributes: Mapping[str, JsonValue],
    job: Job,
    config: ExtractConfig,
    stored: Mapping[str, Mapping[str, Any]],
    wanted: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """In what the frames that a trial is made of are others than a job's, so that nothing of it can stay."""
    rows = attributes.get("rows")
    if not isinstance(attributes.get("source"), dict):
        return ["made elsewhere: the video it comes from is not recorded"]
    if CLOCK not in stored:
        return [UNRECORDED]
    if rows != (attributes.get("frames_decoded") if job.length is None else job.length):
        if job.length is None:
            return ["rows: as many as labels in the store, as frames now (was --annotations forgotten?)"]
        return [f"rows: {rows} in the store, {counted(job.length, 'label row')} now"]
    if config.visual and (job.face == "all") != ("faces" in attributes):
        return [f"face: {attributes.get('face')} in the store, {job.face} now"]
    differences = made_differently(CLOCK, stored, wanted)
    for name in config.features if differences else ():
        differences += made_differently(name, stored, wanted) if name in stored else []
    return differences


def _other_sound(job: Job, entry: Mapping[str, Any]) -> list[str]:
    """In what the file of a job's sound differs from the one that a feature was made from, if it was made from one."""
    record = entry.get("audio_file")
    if job.sound is None or not isinstance(record, dict) or _same_content(job.sound, record):
        return []
    return ["audio_file: not the one in the store"]


def _same_content(video: Path, source: Mapping[str, JsonValue]) -> bool:
    """Size and time as recorded, or else the same content (a copied file has another time)."""
    size, mtime_ns = file_identity(video)
    if source.get("size") != size:
        return False
    if source.get("mtime_ns") == mtime_ns:
        return True
    try:
        return source.get("sha256") == sha256_of(video)
    except OSError:  # not ours to read any more: the extraction will say so, for this video alone
        return False


def same_file(video: Path, record: FailureRecord) -> bool:
    """Whether a video is still the file that failed."""
    return (record.size, record.mtime_ns) == file_identity(video)
