"""Doing a plan: one video after the other; a bad one becomes a failure and never ends the run."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import torch

from ..features_store.claims import claim
from ..features_store.failures import FailureRecord, append_failure
from ..features_store.store import FeatureStore
from .config import ExtractConfig, RunConfig
from .detect import FaceDetector
from .embed import choose_device, load_embedders
from .extract import Progress, Toolbox, extract_video
from .jobs import Failure, Job, Receipt
from .media import MediaError, ffmpeg_version
from .plan import Plan, is_done
from .provenance import identity
from .weights import WeightSource

# With these every further video would fail the same way: the run stops instead, and loses nothing.
_STORE_IS_GONE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.ENOMEM}


class RunStopped(OSError):  # noqa: N818 - an event, not a mistake
    """The run cannot go on: the store cannot be written."""


class Reporter(Protocol):
    """Where a run tells what it does."""

    def begin(self, jobs: int) -> None:
        """The run has this many videos to do."""

    def start(self, job: Job) -> None:
        """A video is begun."""

    def progress(self, frames: int, time_s: float, duration_s: float | None) -> None:
        """Frames of the current video decoded so far."""

    def finish(self, result: Receipt | Failure | None) -> None:
        """A video is done, has failed, or was left to another run (None)."""

    def end(self) -> None:
        """The run is over, one way or the other."""


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

    def failure_lines(self) -> list[str]:
        """One line for each failure, of this run and of former ones."""
        named = [(each.video, each.stage, each.reason) for each in self.failures]
        named += [(each.video, each.stage, each.reason) for each in self.failed_before]
        return [one_line(f"failed: {video}: {stage}: {reason}") for video, stage, reason in named]

    def as_json(self) -> dict[str, object]:
        """The machine-readable summary of `--json`."""
        return {
            "done_before": self.done_before,
            "extracted": [receipt.as_json() for receipt in self.receipts],
            "failed": [each.as_json() for each in self.failures] + [vars(each) for each in self.failed_before],
            "elsewhere": list(self.elsewhere),
            "seconds": round(self.seconds, 3),
        }


def make_toolbox(config: ExtractConfig, run: RunConfig, weights: dict[str, WeightSource]) -> Toolbox:
    """Load the networks. Raises MediaError without ffmpeg: better now than once a video."""
    ffmpeg_version()
    device = choose_device(run.device)
    embedders = load_embedders(config, weights, device, run.batch_size)
    detector = FaceDetector(device) if config.visual and not config.aligned else None
    return Toolbox(config, identity(config, weights), weights, embedders, detector, run.stall_timeout_s)


def run_plan(plan: Plan, store: FeatureStore, load_tools: Callable[[], Toolbox], reporter: Reporter) -> Summary:
    """Do every job of the plan in order; the networks are loaded only if there is one.

    Raises RunStopped when the store cannot be written any more.
    """
    summary = Summary(len(plan.done), failed_before=list(plan.failed_before))
    started_s = time.monotonic()
    for failure in plan.failures:
        _note_failure(store, failure, summary)
    if not plan.jobs:
        return summary
    tools = load_tools()
    reporter.begin(len(plan.jobs))
    try:
        for job in plan.jobs:
            reporter.start(job)
            reporter.finish(_do(job, store, tools, reporter.progress, summary))
    finally:
        reporter.end()
    summary.seconds = time.monotonic() - started_s
    return summary


def _do(
    job: Job, store: FeatureStore, tools: Toolbox, progress: Progress, summary: Summary
) -> Receipt | Failure | None:
    """One job under a claim, so that no other run does it at the same time."""
    with claim(store.path, job.trial) as mine:
        if not mine or is_done(store, job, tools.fingerprint):
            summary.elsewhere.append(job.trial)
            return None
        result = attempt(job, store, tools, progress)
    if isinstance(result, Failure):
        _note_failure(store, result, summary)
    else:
        summary.receipts.append(result)
    return result


def attempt(job: Job, store: FeatureStore, tools: Toolbox, progress: Progress) -> Receipt | Failure:
    """Extract one video; its errors become a Failure with the stage and the reason."""
    try:
        return extract_video(job, store, tools, progress)
    except MediaError as error:
        return Failure(job.name, job.trial, error.stage, str(error), job.video)
    except torch.OutOfMemoryError as error:
        reason = f"out of GPU memory; try a smaller --batch-size ({one_line(str(error))})"
        return Failure(job.name, job.trial, "embed", reason, job.video)
    except ValueError as error:
        return Failure(job.name, job.trial, "extract", str(error), job.video)
    except OSError as error:
        if error.errno in _STORE_IS_GONE:
            raise RunStopped(f"cannot write {store.path}: {error}; what is done is safe, run again to go on") from error
        return Failure(job.name, job.trial, "read", str(error), job.video)


def one_line(text: str) -> str:
    """A text on one line, whatever names or messages are in it."""
    return " ".join(text.split())


def _note_failure(store: FeatureStore, failure: Failure, summary: Summary) -> None:
    summary.failures.append(failure)
    status = failure.path.stat() if failure.path is not None and failure.path.exists() else None
    append_failure(
        store,
        FailureRecord(
            video=failure.video,
            stage=failure.stage,
            reason=failure.reason,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            trial=failure.trial,
            size=status.st_size if status else 0,
            mtime_ns=status.st_mtime_ns if status else 0,
        ),
    )
