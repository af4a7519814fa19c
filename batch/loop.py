"""Jobs done one after the other or many at once, tried again where that may help, until all have ended.

Tested by tests/batch/test_threads.py and test_executor.py.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from .protocols import Cancelled, Ended, Executor, Progressed, Started, Task, WorkerGone, WorkerLost
from .signals import StopRequest

_TICK_S = 1.0
# A job that has taken two processes with it is not tried again.
_MOST_LOSSES = 2

Job = TypeVar("Job")
Result = TypeVar("Result")
Job_contra = TypeVar("Job_contra", contravariant=True)
Result_contra = TypeVar("Result_contra", contravariant=True)


class Listener(Protocol[Job_contra, Result_contra]):
    """Is called with what becomes of the jobs, always in the thread that called `run_jobs`."""

    def started(self, job: Job_contra) -> None:
        """A job has begun, maybe not for the first time."""

    def progressed(self, job: Job_contra, words: tuple[Any, ...]) -> None:
        """A job reports how far it is."""

    def ended(self, job: Job_contra, result: Result_contra | WorkerLost) -> None:
        """A job is over."""

    def retried(self, job: Job_contra, result: Result_contra | WorkerLost) -> None:
        """A try came to nothing; another one follows."""

    def interrupted(self, job: Job_contra) -> None:
        """A try was stopped, and nothing came of it."""

    def tick(self) -> None:
        """About a second has passed, or less."""


@dataclass
class _Try(Generic[Job]):
    job: Job
    failed: int = 0
    lost: int = 0


def run_jobs(
    task: Task[Job, Result],
    jobs: Sequence[Job],
    executor: Executor,
    stop: StopRequest,
    listener: Listener[Job, Result],
    retries: int = 1,
) -> None:
    """Do every job in order; return when all have ended, or when `stop` is set and they have stopped.

    A job is tried again up to `retries` times where its failure may pass, and once where its worker died.
    Raises what a job raises, after the others have stopped.
    """
    waiting = deque(_Try(job) for job in jobs)
    running: dict[int, _Try[Job]] = {}
    number = 0
    error: BaseException | None = None
    asked_to_stop_s: float | None = None
    stop.left = [task.name(job) for job in jobs]
    stop.gentle = True
    try:
        while running or (waiting and not stop.is_set() and error is None):
            if not stop.is_set() and error is None:
                # A suspect comes last, and alone in its process: it can take no other job with it.
                while waiting and executor.take(number, waiting[0].job, waiting[0].lost > 0):
                    running[number] = waiting.popleft()
                    number += 1
            elif asked_to_stop_s is None:
                asked_to_stop_s = time.monotonic()
                executor.stop()
            elif time.monotonic() - asked_to_stop_s > executor.patience_s:
                break
            event = executor.wait(_TICK_S)
            listener.tick()
            if event is None or event.number not in running:
                continue
            if isinstance(event, Started):
                listener.started(running[event.number].job)
            elif isinstance(event, Progressed):
                listener.progressed(running[event.number].job, event.words)
            else:
                if isinstance(event, Ended) and not isinstance(event.error, Cancelled):
                    error = error or event.error
                tried = running.pop(event.number)
                if _is_over(event, tried, task, listener, retries, stop.is_set() or error is not None):
                    stop.left.remove(task.name(tried.job))
                else:
                    waiting.append(tried)
    finally:
        stop.gentle = False
    if error is not None:
        raise error


def _is_over(
    event: Ended | WorkerGone,
    tried: _Try[Job],
    task: Task[Job, Result],
    listener: Listener[Job, Result],
    retries: int,
    ending: bool,
) -> bool:
    """Whether a job is over after this try, or to be done again; tells the listener which. `ending`: the run ends."""
    if isinstance(event, WorkerGone):
        tried.lost += event.blamed
        result: Any = event.lost
        again = tried.lost < _MOST_LOSSES
        interrupted = ending or not event.blamed
    elif event.error is not None:
        result, again, interrupted = None, True, True
    else:
        tried.failed += 1
        result = event.result
        is_transient = task.is_transient(result)
        again = is_transient and tried.failed <= retries
        interrupted = is_transient and ending
    if interrupted:  # nobody is to blame: it is done again, by this run or by the next one
        listener.interrupted(tried.job)
    elif again:
        listener.retried(tried.job, result)
    else:
        listener.ended(tried.job, result)
    return not (interrupted or again)
