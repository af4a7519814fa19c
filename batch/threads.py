"""Jobs in threads of this process.

Tested by tests/batch/test_threads.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from .protocols import Ended, Event, JobContext, Progressed, Started
from .signals import StopRequest


class ThreadExecutor:
    """`slots` threads, which call `do`; the calling one is kept free for signals, which `stop` receives."""

    patience_s = float("inf")  # a job that hangs is ended by `StopRequest`, and the process with it

    def __init__(self, do: Callable[[Any, JobContext], Any], slots: int, stop: StopRequest) -> None:
        self._do, self._free = do, slots
        # Its `put` may interrupt another one, as a signal's handler does.
        self._inbox: SimpleQueue[Event | None] = SimpleQueue()
        self._halted = threading.Event()
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="job")
        stop.wake = partial(self._inbox.put, None)  # ends a `wait` early

    def take(self, number: int, job: Any, alone: bool) -> bool:
        """Begin a try in a free thread."""
        if not self._free:
            return False
        self._free -= 1
        self._inbox.put(Started(number))
        context = JobContext(None, self._halted, lambda words: self._inbox.put(Progressed(number, words)))
        self._pool.submit(self._do, job, context).add_done_callback(partial(self._done, number))
        return True

    def wait(self, timeout_s: float) -> Event | None:
        """The next event; None when none came in time."""
        try:
            event = self._inbox.get(timeout=timeout_s)
        except Empty:
            return None
        self._free += isinstance(event, Ended)
        return event

    def stop(self) -> None:
        """Let every job know at its next check."""
        self._halted.set()

    def close(self) -> None:
        """End the threads, when their jobs have ended."""
        self.stop()
        self._pool.shutdown()

    def _done(self, number: int, future: Future[Any]) -> None:
        error = future.exception()
        self._inbox.put(Ended(number, None if error else future.result(), error))
