"""The failures of a store: one JSON line each, only ever appended.

Tested by tests/features_store/records/test_failures.py.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from ..disk.backends import LocalFiles
from ..disk.jsonl import append_line
from ..entries import entries_of
from ..schema import FAILURES_FILE

if TYPE_CHECKING:
    from ..store import FeatureStore


class Stage(StrEnum):
    """Where a video failed, as `failures.jsonl` spells it; docs/store.md has a sentence on each."""

    PLAN = "plan"
    CLAIM = "claim"
    START = "start"
    PROBE = "probe"
    VIDEO = "video"
    AUDIO = "audio"
    WORDS = "words"
    EMBED = "embed"
    EXTRACT = "extract"
    READ = "read"
    TIMEOUT = "timeout"
    WORKER = "worker"
    ENCODE = "encode"  # of a clip that `synth` or `run --draw` writes: in messages, never in a store


@dataclass(frozen=True)
class FailureRecord:
    """Why one video gave nothing. `time`: ISO 8601; `size` (bytes) and `mtime_ns` of the file that failed.

    `stage` is a `Stage`; records of older versions may hold another word. `features`: those that were to be added to a
    trial that is there, else none.
    """

    video: str
    stage: str
    reason: str
    time: str
    trial: str
    size: int | None = None
    mtime_ns: int | None = None
    features: list[str] | None = None


def append_failure(store: FeatureStore, record: FailureRecord) -> None:
    """Append one line to `<store>/failures.jsonl`, whole or not at all: lines of several processes do not mix.

    Behind a URL the file is written anew instead. Raises OSError where it cannot be written.
    """
    line = json.dumps(asdict(record)).encode() + b"\n"
    if isinstance(store.files, LocalFiles):
        append_line(store.files.root / FAILURES_FILE, line)
    else:
        before = store.files.read(FAILURES_FILE) or b""
        if before and not before.endswith(b"\n"):
            before += b"\n"
        store.files.write(FAILURES_FILE, before + line)


def read_failures(store: FeatureStore) -> list[FailureRecord]:
    """All records in the order of writing; half lines, as a kill leaves them, are skipped."""
    records = []
    for line in (store.files.read(FAILURES_FILE) or b"").split(b"\n"):
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if not isinstance(content, dict):
            continue
        values: dict[str, Any] = {field.name: content.get(field.name) for field in fields(FailureRecord)}
        if not isinstance(values["features"], list):
            values["features"] = None
        if all(isinstance(values[name], str) for name in ("video", "stage", "reason", "time", "trial")):
            records.append(FailureRecord(**values))
    return records


def outstanding(store: FeatureStore) -> list[FailureRecord]:
    """The last record of each trial of each video that the store still lacks, sorted by video."""
    last = {(record.video, record.trial): record for record in read_failures(store)}
    still = []
    for _, record in sorted(last.items()):
        attributes = store.attributes(record.trial)
        if attributes is not None and set(record.features or ()) <= set(entries_of(attributes)):
            continue
        if record.trial == record.video:  # the failure of a name is settled by a trial of that very file
            file = PurePosixPath(record.video)
            source = (store.attributes(file.with_suffix("").as_posix()) or {}).get("source")
            if isinstance(source, dict) and source.get("name") == file.name:
                continue
        still.append(record)
    return still
