"""Which trials are still to do, and how they are shared out between machines. Decodes nothing.

Tested by tests/pipeline/runs/test_plan.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ...batch.sharding import balanced
from ...encoders.weights.resolve import WeightSource
from ...features_store.disk.atomic import sha256_of
from ...features_store.records.failures import FailureRecord, outstanding, read_failures
from ...features_store.schema import JsonValue
from ...features_store.store import FeatureStore
from ...shell.text import check_known, counted, preview
from ..config import ExtractConfig
from ..extraction.jobs import Failure, Job
from ..extraction.provenance import crops_digest, has_crops, made_differently, stored_features
from ..media.probe import probe
from ..media.types import MediaError
from .discover import Sources, check_sources, file_identity, find_jobs

_PROBES_AT_ONCE = 8
_NO_WEIGHTS: Mapping[str, WeightSource] = MappingProxyType({})


@dataclass(frozen=True)
class Replaced:
    """A done trial that this run would make anew from the same video: what differs, and the features it would lose."""

    trial: str
    differences: tuple[str, ...]
    lost: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """Jobs to do, trials already done, failures known before decoding, former failures left alone, and notes.

    `trials`: all that the videos make, whoever does them; `overwrite`: do the jobs even where the store has them;
    `replaced`: those of the jobs that the store holds, made otherwise;
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
    fingerprint: str | None,
    selection: Selection,
    weights: Mapping[str, WeightSource] = _NO_WEIGHTS,
) -> Plan:
    """Leave out what the store (None: a new one) has done with this fingerprint, and what failed before.

    `fingerprint` None: that of these settings with whatever weights the store has. Raises ValueError
    where no trial has the labels or crops that were named, or where a chosen trial is not there.
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
    done, left, replaced = [], [], {}
    for job in shard_of(jobs, *selection.shard):
        differences = None
        if store is not None and not selection.overwrite:
            differences = standing(store, job, config, fingerprint, weights)
        if differences == []:
            done.append(job.trial)
        elif job.trial in former and same_file(job.video, former[job.trial]):
            left.append(former[job.trial])
        else:
            todo.append(job)
            if differences and store is not None:
                stored = stored_features(store.attributes(job.trial) or {}) or []
                lost = tuple(name for name in stored if name not in config.features)
                replaced[job.trial] = Replaced(job.trial, tuple(differences), lost)
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
    )


def shard_of(jobs: list[Job], index: int, count: int) -> list[Job]:
    """Part `index` of `count`: disjoint, complete, the same on every machine, balanced by duration.

    What is done already does not count, since the other parts may be under way. Raises MediaError where a video
    does not answer.
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
    """How many done trials would be made anew, why, and what they would lose."""
    names = preview([each.trial for each in replaced])
    lost = Counter(name for each in replaced for name in each.lost)
    differences = Counter(line for each in replaced for line in each.differences)
    reasons = [_of_them(line, count, len(replaced)) for line, count in differences.most_common(6)]
    if len(differences) > len(reasons):
        reasons.append("and others")
    if lost:
        reasons.append(f"they would lose {', '.join(_of_them(*each, len(replaced)) for each in lost.items())}")
    return f"{counted(len(replaced), 'done trial')} would be replaced ({names}): {'; '.join(reasons)}"


def _of_them(what: str, count: int, total: int) -> str:
    return what if count == total else f"{what} ({count} of them)"


def standing(
    store: FeatureStore,
    job: Job,
    config: ExtractConfig,
    fingerprint: str | None,
    weights: Mapping[str, WeightSource] = _NO_WEIGHTS,
) -> list[str] | None:
    """What the trial that the store holds of this video was made with otherwise, by name with both values.

    Empty: it is done. None: there is none, or one that is not whole, or one of another content: it is made without
    asking.
    """
    attributes = store.attributes(job.trial)
    source = (attributes or {}).get("source")
    if attributes is not None and not isinstance(source, dict):
        return ["made elsewhere: the video it comes from is not recorded"]
    if attributes is None or not isinstance(source, dict) or not _same_content(job.video, source):
        return None
    differences = made_differently(attributes, config, fingerprint, weights)
    face = attributes.get("face")
    if face != job.face and not any(line.startswith("face:") for line in differences):
        differences.append(f"face: {face} in the store, {job.face} now")
    rows = attributes.get("rows")
    if rows != (attributes.get("frames_decoded") if job.length is None else job.length):
        differences.append(
            "rows: as many as labels in the store, as frames now (was --annotations forgotten?)"
            if job.length is None
            else f"rows: {rows} in the store, {counted(job.length, 'label row')} now"
        )
    if job.crops is not None and attributes.get("crops") != crops_digest(job.crops) and not differences:
        if has_crops(job.crops):
            return None  # the organiser's next batch
        differences.append("crops: some in the store, none now (is --aligned right?)")
    return differences if differences or store.has_all_faces(job.trial) else None


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
