"""Jobs done one after the other or many at once, tried again where that may help, until all have ended.

Tested by tests/batch/test_threads.py and test_executor.py.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from .protocols import Cancelled, Ended, Event, Executor, Progressed, Started, Task, WorkerGone, WorkerLost
from .signals import StopRequest

_TICK_S = 1.0
# A job that has taken two processes with it is left alone.
_MOST_LOSSES = 2

Job = TypeVar("Job")
Result = TypeVar("Result")
Job_contra = TypeVar("Job_contra", contravariant=True)
Result_contra = TypeVar("Result_contra", contravariant=True)


class Listener(Protocol[Job_contra, Result_contra]):
    """Who hears what becomes of the jobs, always in the thread that called `run_jobs`."""

    def started(self, job: Job_contra) -> None:
        """A job is begun, maybe not for the first time."""

    def progressed(self, job: Job_contra, words: tuple[Any, ...]) -> None:
        """A job tells how far it is."""

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
    stop.left = [task.name(job) for job in jobs]
    stop.gentle = True
    try:
        _Loop(task, jobs, executor, stop, listener, retries).run()
    finally:
        stop.gentle = False


class _Loop(Generic[Job, Result]):
    def __init__(
        self,
        task: Task[Job, Result],
        jobs: Sequence[Job],
        executor: Executor,
        stop: StopRequest,
        listener: Listener[Job, Result],
        retries: int,
    ) -> None:
        self._task, self._place, self._stop, self._listener, self._retries = task, executor, stop, listener, retries
        self._waiting = deque(_Try(job) for job in jobs)
        self._flying: dict[int, _Try[Job]] = {}
        self._number = 0
        self._error: BaseException | None = None
        self._asked_s: float | None = None

    def run(self) -> None:
        while self._flying or (self._waiting and not self._is_ending()):
            if not self._is_ending():
                self._fill()
            elif self._is_overdue():
                break
            event = self._place.wait(_TICK_S)
            self._listener.tick()
            if event is not None:
                self._hear(event)
        if self._error is not None:
            raise self._error

    def _is_ending(self) -> bool:
        return self._stop.is_set() or self._error is not None

    def _is_overdue(self) -> bool:
        """Ask the jobs to stop, once; whether they have been given long enough."""
        if self._asked_s is None:
            self._asked_s = time.monotonic()
            self._place.stop()
        return time.monotonic() - self._asked_s > self._place.patience_s

    def _fill(self) -> None:
        # A job under suspicion comes last, and alone in its process: it can take no other one with it.
        while self._waiting and self._place.take(self._number, self._waiting[0].job, bool(self._waiting[0].lost)):
            self._flying[self._number] = self._waiting.popleft()
            self._number += 1

    def _hear(self, event: Event) -> None:
        flying = self._flying.get(event.number)
        if flying is None:
            return
        if isinstance(event, Started):
            self._listener.started(flying.job)
        elif isinstance(event, Progressed):
            self._listener.progressed(flying.job, event.words)
        elif isinstance(event, Ended):
            self._end(self._flying.pop(event.number), event)
        else:
            self._lose(self._flying.pop(event.number), event)

    def _end(self, tried: _Try[Job], event: Ended) -> None:
        if event.error is None:
            self._judge(tried, event.result)
            return
        if not isinstance(event.error, Cancelled):
            self._error = self._error or event.error
        self._interrupt(tried)

    def _judge(self, tried: _Try[Job], result: Result) -> None:
        is_transient = self._task.is_transient(result)
        tried.failed += 1
        if is_transient and self._is_ending():
            self._interrupt(tried)
        elif is_transient and tried.failed <= self._retries:
            self._try_again(tried, result)
        else:
            self._finish(tried, result)

    def _lose(self, tried: _Try[Job], event: WorkerGone) -> None:
        tried.lost += event.blamed
        if not event.blamed or self._is_ending():
            self._interrupt(tried)
        elif tried.lost < _MOST_LOSSES:
            self._try_again(tried, event.lost)
        else:
            self._finish(tried, event.lost)

    def _interrupt(self, tried: _Try[Job]) -> None:
        """Nothing came of it, and nobody is to blame: it is done again, by this run or by the next one."""
        self._listener.interrupted(tried.job)
        self._waiting.append(tried)

    def _try_again(self, tried: _Try[Job], result: Result | WorkerLost) -> None:
        self._listener.retried(tried.job, result)
        self._waiting.append(tried)

    def _finish(self, tried: _Try[Job], result: Result | WorkerLost) -> None:
        self._listener.ended(tried.job, result)
        self._stop.left.remove(self._task.name(tried.job))
