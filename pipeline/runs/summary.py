"""What a run came to, and the failures it leaves in the store. Needs no torch: an idle run is quick."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ...features_store.records.failures import FailureRecord, append_failure
from ...features_store.records.status import note_planned
from ...features_store.store import FeatureStore
from ...shell.text import one_line
from ..extraction.jobs import Failure, Job, Receipt
from .discover import file_identity
from .plan import Plan


class StoreFailed(OSError):  # noqa: N818 - an event, not a mistake
    """The run cannot go on: the store cannot be written."""


@dataclass
class Summary:
    """What a run came to."""

    done_before: int
    receipts: list[Receipt] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    failed_before: list[FailureRecord] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def failed(self) -> int:
        """Videos that have failed, now or before."""
        return len(self.failures) + len(self.failed_before)

    def as_json(self) -> dict[str, object]:
        """The machine-readable summary of `--json`."""
        return {
            "done_before": self.done_before,
            "extracted": [receipt.as_json() for receipt in self.receipts],
            "failed": [each.as_json() for each in self.failures] + [vars(each) for each in self.failed_before],
            "elsewhere": list(self.elsewhere),
            "seconds": round(self.seconds, 3),
        }

    def add(self, result: Receipt | Failure | None, job: Job, store: FeatureStore) -> None:
        """Take in one job's end; None: another run has it, or has found it bad."""
        if result is None:
            self.elsewhere.append(job.trial)
        elif isinstance(result, Failure):
            self.failures.append(result)
            append_failure(store, record_of(result))
        else:
            self.receipts.append(result)


def begin_summary(plan: Plan, store: FeatureStore) -> Summary:
    """The summary of a run before its first job; what is planned, and what planning found bad, goes to the store.

    Raises StoreFailed.
    """
    with stop_on_store_error(store):
        note_planned(store, plan.trials)
        for failure in plan.failures:
            append_failure(store, record_of(failure))
    return Summary(len(plan.done), failures=list(plan.failures), failed_before=list(plan.failed_before))


@contextmanager
def stop_on_store_error(store: FeatureStore) -> Iterator[None]:
    """Raises StoreFailed for an OSError: with a full disk every further video would fail the same way."""
    try:
        yield
    except OSError as error:
        raise StoreFailed(
            f"cannot go on with {store.path}: {one_line(error)}; what is done is safe, run again to go on"
        ) from error


def record_of(failure: Failure) -> FailureRecord:
    """The line of a failure in `failures.jsonl`, with what tells later whether the file is still the same."""
    size, mtime_ns = file_identity(failure.path)
    return FailureRecord(
        video=failure.video,
        stage=failure.stage,
        reason=failure.reason,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        trial=failure.trial,
        size=size,
        mtime_ns=mtime_ns,
        features=list(failure.features) or None,
    )
