"""What a run has to do: the jobs found, less what the store has done and what failed before.

Tested by tests/pipeline/test_plan.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..batch.shards import balanced
from ..features_store.failures import FailureRecord, outstanding, read_failures
from ..features_store.store import FeatureStore
from ..features_store.types import JsonValue
from .config import ExtractConfig
from .discover import Sources, file_identity, find_jobs
from .durations import weights_ms
from .jobs import Failure, Job
from .provenance import crops_digest
from .registry import sha256_of


@dataclass(frozen=True)
class Plan:
    """Jobs to do, trials already done, failures known before decoding, former failures left alone, and notes.

    `trials`: all that the videos make, whoever does them; `overwrite`: do the jobs even where the store has them;
    `failures_known`: how many lines `failures.jsonl` had, so that newer ones can be told.
    """

    jobs: tuple[Job, ...]
    done: tuple[str, ...]
    failures: tuple[Failure, ...]
    failed_before: tuple[FailureRecord, ...]
    notes: tuple[str, ...]
    trials: tuple[str, ...]
    overwrite: bool
    failures_known: int


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


@dataclass(frozen=True)
class Selection:
    """Which of the jobs found are wanted: part I of N, done and failed ones too or not, at most so many."""

    shard: tuple[int, int] = (0, 1)
    overwrite: bool = False
    retry_failed: bool = False
    limit: int | None = None


def make_plan(
    sources: Sources,
    config: ExtractConfig,
    store: FeatureStore | None,
    fingerprint: str,
    selection: Selection,
) -> Plan:
    """Leave out what the store (None: a new one) has done with this fingerprint, and what failed before."""
    jobs, failures, notes = find_jobs(sources, config)
    known = len(read_failures(store)) if store is not None else 0
    former: dict[str, FailureRecord] = {}
    if store is not None and not selection.retry_failed and not selection.overwrite:
        former = {record.trial: record for record in outstanding(store)}
    todo, done, left = [], [], []
    for job in shard_of(jobs, *selection.shard):
        if store is not None and not selection.overwrite and is_done(store, job, fingerprint):
            done.append(job.trial)
        elif job.trial in former and same_file(job.video, former[job.trial]):
            left.append(former[job.trial])
        else:
            todo.append(job)
    # What planning itself finds is the same for every shard: the first one reports it, and only once.
    found = failures if selection.shard[0] == 0 else []
    left += [former[each.trial] for each in found if _is_known(each, former)]
    return Plan(
        jobs=tuple(todo[: selection.limit]),
        done=tuple(done),
        failures=tuple(each for each in found if not _is_known(each, former)),
        failed_before=tuple(left),
        notes=tuple(notes),
        trials=tuple(job.trial for job in jobs),
        overwrite=selection.overwrite,
        failures_known=known,
    )


def is_done(store: FeatureStore, job: Job, fingerprint: str) -> bool:
    """Whether the store holds this trial, made by these settings from this file (and crops) to this length."""
    attributes = store.attributes(job.trial)
    if attributes is None or attributes.get("fingerprint") != fingerprint or attributes.get("face") != job.face:
        return False
    wanted_length = attributes.get("frames_decoded") if job.length is None else job.length
    if attributes.get("rows") != wanted_length or not store.has_all_faces(job.trial):
        return False
    if job.crops is not None and attributes.get("crops") != crops_digest(job.crops):
        return False
    return _same_content(job.video, attributes.get("source"))


def _is_known(failure: Failure, former: Mapping[str, FailureRecord]) -> bool:
    record = former.get(failure.trial)
    return record is not None and record.reason == failure.reason


def _same_content(video: Path, source: JsonValue) -> bool:
    """Size and time as recorded, or else the same content (a copied file has another time)."""
    size, mtime_ns = file_identity(video)
    if not isinstance(source, dict) or source.get("size") != size:
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
