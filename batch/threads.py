"""Jobs in threads of this process.

Tested by tests/batch/test_threads.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from .protocols import Cancelled, Ended, Event, JobContext, Progressed, Started, Task
from .signals import StopRequest


class _JobContext:
    where = None

    def __init__(self, number: int, put: Callable[[Event], None], ending: threading.Event) -> None:
        self._number, self._put, self._ending = number, put, ending

    def check(self) -> None:
        if self._ending.is_set():
            raise Cancelled

    def tell(self, *words: Any) -> None:
        self._put(Progressed(self._number, words))


class ThreadExecutor:
    """`slots` threads; the calling one is kept free for signals."""

    patience_s = float("inf")  # who hangs is ended by `StopRequest`, and the process with it

    def __init__(self, do: Callable[[Any, JobContext], Any], slots: int) -> None:
        self._do, self._free = do, slots
        # Its `put` may interrupt another one, as a signal's handler does.
        self._inbox: SimpleQueue[Event | None] = SimpleQueue()
        self._ending = threading.Event()
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="job")

    def wake(self) -> None:
        """End a `wait` early."""
        self._inbox.put(None)

    def take(self, number: int, job: Any, alone: bool) -> bool:
        """Begin a try in a free thread."""
        if not self._free:
            return False
        self._free -= 1
        self._inbox.put(Started(number))
        future = self._pool.submit(self._do, job, _JobContext(number, self._inbox.put, self._ending))
        future.add_done_callback(partial(self._done, number))
        return True

    def wait(self, timeout_s: float) -> Event | None:
        """The next event."""
        try:
            event = self._inbox.get(timeout=timeout_s)
        except Empty:
            return None
        self._free += isinstance(event, Ended)
        return event

    def stop(self) -> None:
        """Let every job know at its next check."""
        self._ending.set()

    def close(self) -> None:
        """End the threads, when their jobs have ended."""
        self.stop()
        self._pool.shutdown()

    def _done(self, number: int, future: Future[Any]) -> None:
        error = future.exception()
        self._inbox.put(Ended(number, None if error else future.result(), error))


@contextmanager
def open_thread_executor(task: Task[Any, Any], slots: int, stop: StopRequest) -> Iterator[ThreadExecutor]:
    """Threads of this process, with what the jobs share made before."""
    with task.prepare() as do:
        here = ThreadExecutor(do, slots)
        stop.wake = here.wake
        try:
            yield here
        finally:
            here.close()
