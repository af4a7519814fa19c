"""What is done for many jobs, wherever that is: the words that `loop`, the executors and their callers share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from ..features_store.disk.owner import Owner

Job_contra = TypeVar("Job_contra", contravariant=True)
Result = TypeVar("Result")


class Cancelled(Exception):  # noqa: N818 - an event, not a mistake
    """The run is being stopped: raised inside a job, which then leaves nothing behind."""


class WorkerUnfit(RuntimeError):  # noqa: N818
    """A worker cannot do the jobs of this run, or there is no cluster to do them; the message says why, and which."""


@dataclass
class JobContext:
    """What a job is given: it asks whether to go on, and reports how far it is.

    `host` is the name of the worker's host, None in the run's own process; `send` passes a report on, at most one
    every `every_s` seconds.
    """

    host: str | None
    halted: threading.Event
    send: Callable[[tuple[Any, ...]], None]
    every_s: float = 0.0
    _sent_s: float = field(default=float("-inf"), init=False)  # so the first report is passed on at once

    def check(self) -> None:
        """Call this every few seconds. Raises Cancelled."""
        if self.halted.is_set():
            raise Cancelled

    def tell(self, *words: Any) -> None:
        """How far the job is, small things only."""
        now_s = time.monotonic()
        if now_s - self._sent_s >= self.every_s:
            self._sent_s = now_s
            self.send(words)


class Task(Protocol[Job_contra, Result]):
    """What is done for each job: small and picklable, since it travels to every worker."""

    def name(self, job: Job_contra) -> str:
        """What a job is called on the screen."""

    def prepare(self) -> AbstractContextManager[Callable[[Job_contra, JobContext], Result]]:
        """Once per process: make what its jobs share, and give the function for one job, which several threads call.

        An exception out of that function ends the whole run; what is wrong with one job is a result.
        """

    def is_transient(self, result: Result) -> bool:
        """Whether a result is a failure for a reason that may pass: the job is then tried again."""


@dataclass(frozen=True)
class WorkerLost:
    """What became of a job whose worker died over it: at which address, on which host, which process."""

    address: str
    host: str
    owner: Owner

    @property
    def reason(self) -> str:
        """What is said of the job."""
        return f"its worker on {self.host} died: out of memory, or a crash inside a library"


@dataclass(frozen=True)
class Started:
    """A try has begun."""

    number: int


@dataclass(frozen=True)
class Progressed:
    """A job has reported how far it is."""

    number: int
    words: tuple[Any, ...]


@dataclass(frozen=True)
class Ended:
    """A try is over: its result, or the error that ended it (Cancelled: nothing came of it)."""

    number: int
    result: Any
    error: BaseException | None = None


@dataclass(frozen=True)
class WorkerGone:
    """A try went down with its worker; `blamed` unless the worker had said that it was closing."""

    number: int
    lost: WorkerLost
    blamed: bool


Event = Started | Progressed | Ended | WorkerGone


class Executor(Protocol):
    """What does the jobs. Used by one thread."""

    patience_s: float
    """How long jobs may take to stop before they are left to themselves."""

    def take(self, number: int, job: Any, alone: bool) -> bool:
        """Begin a try, `alone` in its process if need be; False where there is no room now."""

    def wait(self, timeout_s: float) -> Event | None:
        """The next event; None when none came in time."""

    def stop(self) -> None:
        """Ask all jobs to stop."""
