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
    EMBED = "embed"
    EXTRACT = "extract"
    READ = "read"
    TIMEOUT = "timeout"
    WORKER = "worker"
    ENCODE = "encode"  # of a clip of the planted corpus: in messages, never in a store


@dataclass(frozen=True)
class FailureRecord:
    """Why one video gave nothing. `time`: ISO 8601; `size` (bytes) and `mtime_ns` of the file that failed.

    `stage` is a `Stage`; records of older versions may hold another word.
    """

    video: str
    stage: str
    reason: str
    time: str
    trial: str
    size: int | None = None
    mtime_ns: int | None = None


def append_failure(store: FeatureStore, record: FailureRecord) -> None:
    """Append one line to `<store>/failures.jsonl`, whole or not at all: lines of several processes do not mix.

    Behind a URL the file is written anew instead. Raises OSError where it cannot be written.
    """
    line = json.dumps(asdict(record)).encode() + b"\n"
    if isinstance(store.files, LocalFiles):
        append_line(store.files.root / FAILURES_FILE, line)
    else:
        before = store.files.read(FAILURES_FILE) or b""
        store.files.write(FAILURES_FILE, before + _line_break(before) + line)


def read_failures(store: FeatureStore) -> list[FailureRecord]:
    """All records in the order of writing; half lines, as a kill leaves them, are passed over."""
    lines = (store.files.read(FAILURES_FILE) or b"").split(b"\n")
    return [record for record in map(_parse, lines) if record is not None]


def outstanding(store: FeatureStore) -> list[FailureRecord]:
    """The last record of each trial of each video that the store still lacks, sorted by video."""
    last = {(record.video, record.trial): record for record in read_failures(store)}
    return [record for _, record in sorted(last.items()) if not _is_fixed(store, record)]


def _is_fixed(store: FeatureStore, record: FailureRecord) -> bool:
    """Whether the trial is there; a failure of a name (trial = file name) is mended by a trial of that very file."""
    if store.attributes(record.trial) is not None:
        return True
    file = PurePosixPath(record.video)
    attributes = store.attributes(file.with_suffix("").as_posix()) if record.trial == record.video else None
    source = (attributes or {}).get("source")
    return isinstance(source, dict) and source.get("name") == file.name


def _line_break(before: bytes) -> bytes:
    return b"\n" if before and not before.endswith(b"\n") else b""


def _parse(line: bytes) -> FailureRecord | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    values: dict[str, Any] = {field.name: found.get(field.name) for field in fields(FailureRecord)}
    texts = [values[name] for name in ("video", "stage", "reason", "time", "trial")]
    return FailureRecord(**values) if all(isinstance(text, str) for text in texts) else None
