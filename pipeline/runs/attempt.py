"""One try at one video: what goes wrong becomes a Failure, with whether it may pass; it may not take for ever.

Tested by tests/pipeline/runs/test_work.py.
"""

from __future__ import annotations

import time

from ...batch.protocols import JobContext
from ...batch.torch_errors import compute_error
from ...features_store.disk.backends import LocalFiles
from ...features_store.disk.unwritable import is_stores_fault
from ...features_store.store import FeatureStore
from ...shell.text import flat, one_line
from ..config import LESS_MEMORY, RunConfig
from ..extraction.jobs import Failure, Job, Receipt, Stage
from ..extraction.session import Session
from ..extraction.video import extract_video
from ..media.types import MediaError

# What an odd file can provoke in ffprobe's answer, in NumPy or in a network: it costs that video only.
_VIDEO_ERRORS = (ValueError, LookupError, ArithmeticError)
# What a disk that is away for a moment makes ffmpeg say.
_PASSING_WORDS = ("Input/output error", "Stale file handle", "Connection timed out", "Cannot allocate memory")


class _TimedOutError(Exception):
    """No MediaError: sound that cannot be decoded counts as none, but this is the end of the video."""


class _Watch:
    """Told of every batch of a video, it lets the run know, and ends the video when it must not go on."""

    def __init__(self, run: RunConfig, context: JobContext) -> None:
        self._run, self._context = run, context
        self._began_s = time.monotonic()

    def progress(self, stage: Stage, rows: int, time_s: float, duration_s: float | None) -> None:
        """Raises batch.work.Cancelled, or _TimedOutError."""
        self._context.check()
        # Of a video that does not tell its duration what has been seen counts.
        length_s = max(time_s, duration_s or 0.0)
        allowed_s = self._run.timeout_floor_s + self._run.timeout_factor * length_s
        if time.monotonic() - self._began_s > allowed_s:
            raise _TimedOutError(
                f"not done after {allowed_s:.0f} s ({self._run.timeout_floor_s:g} s and {self._run.timeout_factor:g} "
                f"times its {length_s:.1f} s; {stage} row {rows}): allow more by --timeout-factor"
            )
        self._context.tell(stage, rows, time_s, duration_s)


def attempt(job: Job, store: FeatureStore, session: Session, run: RunConfig, context: JobContext) -> Receipt | Failure:
    """Extract one video; its errors become a Failure with the stage and the reason.

    Raises OSError when it is the store that cannot be written, batch.work.Cancelled when the run is being stopped.
    """
    try:
        return extract_video(job, store, session, _Watch(run, context).progress)
    except _TimedOutError as error:
        return _failure(job, "timeout", str(error), is_transient=True)
    except MediaError as error:
        return _media_failure(job, error, context.host)
    except (RuntimeError, MemoryError) as error:
        told = compute_error(error, LESS_MEMORY)
        stage = "embed" if type(error).__module__.startswith("torch") else "extract"
        return _failure(job, stage, str(told), told.is_transient)
    except _VIDEO_ERRORS as error:
        return _failure(job, "extract", f"{type(error).__name__}: {one_line(error)}")
    except OSError as error:
        # With these every further video would fail the same way: the run stops instead, and loses nothing.
        if is_stores_fault(error, store.files.root if isinstance(store.files, LocalFiles) else None):
            raise
        return _failure(job, "read", one_line(error), is_transient=True)


def _media_failure(job: Job, error: MediaError, where: str | None) -> Failure:
    unread = isinstance(error.__cause__, OSError)
    words = f"{job.video} {error.words} (by the worker on {where})" if unread and where else error.words
    is_transient = error.is_transient or unread or any(word in error.words for word in _PASSING_WORDS)
    return _failure(job, error.stage, words, is_transient=is_transient)


def _failure(job: Job, stage: str, reason: str, is_transient: bool = False) -> Failure:
    return Failure(job.name, job.trial, stage, flat(reason), job.video, is_transient)
