"""Doing a plan: one video after the other; a bad one becomes a failure and never ends the run."""

from __future__ import annotations

import errno
import time
from typing import Protocol

import torch

from ..features_store.claims import claim
from ..features_store.errors import flat, one_line
from ..features_store.failures import read_failures
from ..features_store.store import FeatureStore
from .extract import extract_video
from .jobs import Failure, Job, Progress, Receipt, Stage
from .media import MediaError
from .plan import Plan, is_done, same_file
from .summary import Summary, stopping
from .toolbox import Toolbox

# What an odd file can provoke in ffprobe's answer, in NumPy or in a network: it costs that video only.
_VIDEO_ERRORS = (ValueError, LookupError, ArithmeticError, RuntimeError, MemoryError)
# With these every further video would fail the same way: the run stops instead, and loses nothing.
_STORE_IS_GONE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.ENOMEM}


class Reporter(Protocol):
    """Where a run tells what it does."""

    def begin(self, jobs: int) -> None:
        """The run has this many videos to do."""

    def start(self, job: Job) -> None:
        """A video is begun."""

    def progress(self, stage: Stage, rows: int, time_s: float, duration_s: float | None) -> None:
        """Rows of the current video done so far, of its picture or of its sound."""

    def finish(self, result: Receipt | Failure | None) -> None:
        """A video is done, has failed, or was left to another run (None)."""

    def end(self) -> None:
        """The run is over, one way or the other."""


def run_plan(plan: Plan, store: FeatureStore, tools: Toolbox, reporter: Reporter, summary: Summary) -> None:
    """Do every job of the plan in order, into `summary`.

    Raises RunStopped when the store cannot be written any more.
    """
    started_s = time.monotonic()
    reporter.begin(len(plan.jobs))
    try:
        for job in plan.jobs:
            reporter.start(job)
            with stopping(store), claim(store.path, job.trial) as mine:
                wanted = mine and (plan.overwrite or not _settled(job, plan, store, tools.fingerprint))
                result = attempt(job, store, tools, reporter.progress) if wanted else None
                summary.add(result, job, store)
            reporter.finish(result)
    finally:
        reporter.end()
        summary.seconds = time.monotonic() - started_s


def _settled(job: Job, plan: Plan, store: FeatureStore, fingerprint: str) -> bool:
    """Whether another run has done the trial, or found its video bad, since the plan was made."""
    newer = read_failures(store)[plan.failures_known :]
    found_bad = any(record.trial == job.trial and same_file(job.video, record) for record in newer)
    return found_bad or is_done(store, job, fingerprint)


def attempt(job: Job, store: FeatureStore, tools: Toolbox, progress: Progress) -> Receipt | Failure:
    """Extract one video; its errors become a Failure with the stage and the reason.

    Raises OSError when it is the store that cannot be written.
    """
    try:
        return extract_video(job, store, tools, progress)
    except MediaError as error:
        return _failure(job, error.stage, error.words)
    except torch.OutOfMemoryError as error:
        return _failure(job, "embed", f"out of GPU memory; try a smaller --batch-size ({error})")
    except _VIDEO_ERRORS as error:
        return _failure(job, "extract", f"{type(error).__name__}: {one_line(error)}")
    except OSError as error:
        if error.errno in _STORE_IS_GONE:
            raise
        return _failure(job, "read", one_line(error))


def _failure(job: Job, stage: str, reason: str) -> Failure:
    return Failure(job.name, job.trial, stage, flat(reason), job.video)
