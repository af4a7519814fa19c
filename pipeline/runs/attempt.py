"""One try at one video: what goes wrong becomes a Failure, with whether it may pass; it may not take for ever.

Tested by tests/pipeline/runs/test_work.py.
"""

from __future__ import annotations

import time

from ...batch.protocols import JobContext
from ...batch.torch_errors import compute_error
from ...features_store.disk.backends import LocalFiles
from ...features_store.disk.unwritable import is_stores_fault
from ...features_store.records.failures import Stage
from ...features_store.store import FeatureStore
from ...shell.text import flat, one_line
from ..config import LESS_MEMORY, RunConfig
from ..extraction.jobs import Failure, Job, Receipt
from ..extraction.session import Session
from ..extraction.video import extract_video
from ..media.types import MediaError

# What an odd file can provoke in ffprobe's answer, in NumPy or in a network: it costs that video only.
_VIDEO_ERRORS = (ValueError, LookupError, ArithmeticError)
# What a disk that is away for a moment makes ffmpeg say.
_PASSING_WORDS = ("Input/output error", "Stale file handle", "Connection timed out", "Cannot allocate memory")


class _TimedOutError(Exception):
    """No MediaError: sound that cannot be decoded counts as none, but this is the end of the video."""


def attempt(job: Job, store: FeatureStore, session: Session, run: RunConfig, context: JobContext) -> Receipt | Failure:
    """Extract one video; its errors become a Failure with the stage and the reason.

    Raises OSError when it is the store that cannot be written, Cancelled when the run is being stopped.
    """
    began_s = time.monotonic()

    def progress(stream: str, rows: int, time_s: float, duration_s: float | None) -> None:
        """Called with every batch: pass it on, and end the video when it must not go on."""
        context.check()
        # Of a video that does not say its duration, what has been seen counts.
        length_s = max(time_s, duration_s or 0.0)
        allowed_s = run.timeout_floor_s + run.timeout_factor * length_s
        if time.monotonic() - began_s > allowed_s:
            raise _TimedOutError(
                f"not done after {allowed_s:.0f} s ({run.timeout_floor_s:g} s and {run.timeout_factor:g} "
                f"times its {length_s:.1f} s; {stream} row {rows}): allow more by --timeout-factor"
            )
        context.tell(stream, rows, time_s, duration_s)

    is_transient = True
    try:
        return extract_video(job, store, session, progress)
    except _TimedOutError as error:
        stage, reason = Stage.TIMEOUT, str(error)
    except MediaError as error:
        unread = isinstance(error.__cause__, OSError)
        stage, reason = error.stage, error.words
        if unread and context.host:
            reason = f"{job.video} {error.words} (by the worker on {context.host})"
        is_transient = error.is_transient or unread or any(word in error.words for word in _PASSING_WORDS)
    except (RuntimeError, MemoryError) as error:
        explained = compute_error(error, LESS_MEMORY)
        stage = Stage.EMBED if type(error).__module__.startswith("torch") else Stage.EXTRACT
        reason, is_transient = str(explained), explained.is_transient
    except _VIDEO_ERRORS as error:
        stage, reason, is_transient = Stage.EXTRACT, f"{type(error).__name__}: {one_line(error)}", False
    except OSError as error:
        # With these every further video would fail the same way: the run stops instead, and loses nothing.
        if is_stores_fault(error, store.files.root if isinstance(store.files, LocalFiles) else None):
            raise
        stage, reason = Stage.READ, one_line(error)
    added = job.features if job.adds else ()
    return Failure(job.name, job.trial, stage, flat(reason), job.video, is_transient, added)
