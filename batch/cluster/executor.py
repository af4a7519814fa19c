"""Jobs on the workers of a dask cluster.

dask starts workers, moves jobs and results, and sees workers die. Which worker does which job is decided in this file:
no job waits behind another one, a job whose worker dies is known by name, and a suspect is tried alone. So no job is
blamed for its neighbour, and none is done twice by dask on its own, whatever the scheduler is set to.
Tested by tests/batch/cluster/test_executor.py.
"""

from __future__ import annotations

import pickle
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Client, Future, KilledWorker

from ..protocols import Cancelled, Ended, Event, Progressed, Started, Task, WorkerGone, WorkerLost, WorkerUnfit
from ..resources import jobs_at_once
from ..signals import StopRequest
from .worker import Hello, RunPlugin, do_job, halt, hello, versions

_PATIENCE_S = 3.5
_ANSWER_S = 30.0
_NO_SCHEDULER = "the scheduler has ended; what is done is safe, run again to go on"
Note = Callable[[str], None]


@dataclass
class _Worker:
    lost: WorkerLost  # who it is, once it is lost
    slots: int
    running: set[int] = field(default_factory=set)
    alone: bool = False
    closing: bool = False


class DaskExecutor:
    """Jobs on the workers of `client`'s cluster, `at_once` in a process (0: one, or several where there is a GPU)."""

    patience_s = _PATIENCE_S

    def __init__(self, client: Client, task: Task[Any, Any], at_once: int, stop: StopRequest, note: Note) -> None:
        self._client, self._at_once, self._note = client, at_once, note
        self._run = f"avfuse-{uuid.uuid4().hex}"
        self._workers: dict[str, _Worker] = {}
        self._running: dict[int, tuple[Future[Any], str]] = {}
        self._events: deque[Event] = deque()
        # Its `put` may interrupt another one, as a signal's handler does.
        self._inbox: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        stop.wake = partial(self._inbox.put, ("wake", None))  # ends a `wait` early
        client.subscribe_topic("all", lambda event: self._inbox.put(("cluster", event[1])))
        client.subscribe_topic(self._run, lambda event: self._inbox.put(tuple(event[1])))
        self._meet_workers()
        client.register_plugin(RunPlugin(self._run, task))

    def take(self, number: int, job: Any, alone: bool) -> bool:
        """Send a job to a worker that has room for it, the one with the fewest jobs."""
        free = []
        for address, worker in self._workers.items():
            room = not worker.running if alone else len(worker.running) < worker.slots
            if room and not worker.closing and not worker.alone:
                free.append((len(worker.running), address))
        if not free:
            return False
        _, address = min(free, key=lambda each: each[0])
        self._workers[address].running.add(number)
        self._workers[address].alone = alone
        key = f"{self._run}-{number}"
        future = self._client.submit(do_job, self._run, number, job, key=key, workers=[address], pure=False)
        self._running[number] = future, address
        future.add_done_callback(partial(self._done, number))
        self._events.append(Started(number))
        return True

    def wait(self, timeout_s: float) -> Event | None:
        """The next event; None when none came in time.

        Raises WorkerUnfit where the cluster has ended, or a worker cannot do the jobs.
        """
        if not self._events:
            with suppress(Empty):
                self._handle(*self._inbox.get(timeout=timeout_s))
        if self._client.status in ("closing", "closed"):
            raise WorkerUnfit(_NO_SCHEDULER)
        return self._events.popleft() if self._events else None

    def stop(self) -> None:
        """Let every worker know."""
        self._client.run(halt, self._run, wait=False)

    def close(self) -> None:
        """Let go of the workers, which go on to serve others."""
        with suppress(OSError, ValueError):  # the scheduler may have ended, which has been said
            self._client.unregister_worker_plugin(self._run)
            for topic in ("all", self._run):
                self._client.unsubscribe_topic(topic)

    def _done(self, number: int, future: Future[Any]) -> None:
        if future.status != "finished":
            self._inbox.put(("failed", number))

    def _handle(self, what: str, content: Any) -> None:
        """Take one message of a worker or of dask."""
        if what == "progressed":
            number, words = content
            self._events.append(Progressed(number, tuple(words)))
        elif what == "ended" and content[0] in self._running:
            # As its worker says: that is one message, where fetching a result takes several.
            number, done, result = content
            self._land(number)[0].release()
            self._events.append(Ended(number, pickle.loads(result), None if done else Cancelled()))
        elif what == "failed" and content in self._running:
            # As dask says, where it was an error.
            future, worker = self._land(content)
            error = future.exception(timeout=_ANSWER_S) if future.status == "error" else None
            if error is None:
                raise WorkerUnfit(_NO_SCHEDULER)
            killed = isinstance(error, KilledWorker)
            event = WorkerGone(content, worker.lost, blamed=not worker.closing)
            self._events.append(event if killed else Ended(content, None, error))
        elif what == "closing" and content in self._workers:
            self._workers[content].closing = True
        elif what == "cluster" and isinstance(content, dict):
            if content.get("action") == "add-worker":
                self._meet_workers()
            elif content.get("action") == "remove-worker" and content["worker"] in self._workers:
                worker = self._workers.pop(content["worker"])
                for number in sorted(worker.running):
                    future, _ = self._running.pop(number)
                    future.release()  # bound to an address that is no more, it would wait for ever
                    blamed = not (content["expected"] or worker.closing)
                    self._events.append(WorkerGone(number, worker.lost, blamed))
                if not self._workers:
                    self._note("the last worker has ended: waiting for new ones")

    def _meet_workers(self) -> None:
        """Get to know the workers that are new. Raises WorkerUnfit where one has other software than this process."""
        threads = self._client.nthreads()
        new = [address for address in threads if address not in self._workers]
        answers = self._client.run(hello, workers=new, on_error="return") if new else {}
        mine = versions()
        for address, answer in answers.items():
            if isinstance(answer, OSError):  # it has ended again
                continue
            if not isinstance(answer, Hello):
                raise WorkerUnfit(f"the worker at {address} does not know this version of avfuse: {answer}")
            theirs = answer.versions
            names = sorted(name for name in {*mine, *theirs} if mine.get(name) != theirs.get(name))
            if names:
                other = ", ".join(f"{name} {mine.get(name)} here, {theirs.get(name)} there" for name in names)
                raise WorkerUnfit(
                    f"the worker at {address} ({answer.host}) has other versions: {other}; install the same ones"
                )
            slots = min(jobs_at_once(self._at_once, answer.gpus), threads[address])
            self._workers[address] = _Worker(WorkerLost(address, answer.host, answer.owner), slots)

    def _land(self, number: int) -> tuple[Future[Any], _Worker]:
        """Strike a job that has ended from the lists."""
        future, address = self._running.pop(number)
        worker = self._workers[address]
        worker.running.discard(number)
        worker.alone = worker.alone and bool(worker.running)
        return future, worker
