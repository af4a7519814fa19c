"""Jobs on the workers of a dask cluster.

dask starts workers, moves jobs and results, and sees workers die. Which worker does which job is told it here: no
job waits behind another one, a job whose worker dies is known by name, and a suspect is tried alone. So no job is
blamed for its neighbour, and none is done twice by dask on its own, whatever the scheduler is set to.
Tested by tests/batch/cluster/test_executor.py.
"""

from __future__ import annotations

import pickle
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Client, Future, KilledWorker

from ..protocols import Cancelled, Ended, Event, Progressed, Started, Task, WorkerGone, WorkerLost, WorkerUnfit
from ..resources import jobs_at_once
from ..signals import StopRequest
from .worker import Hello, RunPlugin, do_job, halt, hello, topic, versions

_PATIENCE_S = 3.5
_ANSWER_S = 30.0
_NO_SCHEDULER = "the scheduler is gone; what is done is safe, run again to go on"
Note = Callable[[str], None]


@dataclass
class _Worker:
    hello: Hello
    slots: int
    flying: set[int] = field(default_factory=set)
    alone: bool = False
    leaving: bool = False

    def has_room(self, alone: bool) -> bool:
        if self.leaving or self.alone:
            return False
        return not self.flying if alone else len(self.flying) < self.slots


class DaskExecutor:
    """Jobs on the workers of `client`'s cluster, `at_once` in a process (0: one, or several where there is a GPU)."""

    patience_s = _PATIENCE_S

    def __init__(self, client: Client, task: Task[Any, Any], at_once: int, note: Note) -> None:
        self._client, self._at_once, self._note = client, at_once, note
        self._run = uuid.uuid4().hex
        self._workers: dict[str, _Worker] = {}
        self._flying: dict[int, tuple[Future[Any], str]] = {}
        self._events: deque[Event] = deque()
        # Its `put` may interrupt another one, as a signal's handler does.
        self._inbox: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        client.subscribe_topic("all", self._hear_of_cluster)
        client.subscribe_topic(topic(self._run), lambda event: self._inbox.put(tuple(event[1])))
        self._look_around()
        client.register_plugin(RunPlugin(self._run, task))

    def wake(self) -> None:
        """End a `wait` early."""
        self._inbox.put(("wake", None))

    def take(self, number: int, job: Any, alone: bool) -> bool:
        """Send a job to a worker that has room for it."""
        free = [address for address, worker in self._workers.items() if worker.has_room(alone)]
        if not free:
            return False
        address = min(free, key=lambda address: len(self._workers[address].flying))
        self._workers[address].flying.add(number)
        self._workers[address].alone = alone
        key = f"{topic(self._run)}-{number}"
        future = self._client.submit(do_job, self._run, number, job, key=key, workers=[address], pure=False)
        self._flying[number] = future, address
        future.add_done_callback(partial(self._done, number))
        self._events.append(Started(number))
        return True

    def wait(self, timeout_s: float) -> Event | None:
        """The next event. Raises WorkerUnfit where the cluster is gone, or a worker cannot do the jobs."""
        if not self._events:
            with suppress(Empty):
                self._understand(*self._inbox.get(timeout=timeout_s))
        if self._client.status in ("closing", "closed"):
            raise WorkerUnfit(_NO_SCHEDULER)
        return self._events.popleft() if self._events else None

    def stop(self) -> None:
        """Let every worker know."""
        self._client.run(halt, self._run, wait=False)

    def close(self) -> None:
        """Let go of the workers, which go on to serve others."""
        with suppress(OSError, ValueError):  # the scheduler may be gone, which has been said
            self._client.unregister_worker_plugin(topic(self._run))
            for each in ("all", topic(self._run)):
                self._client.unsubscribe_topic(each)

    def _done(self, number: int, future: Future[Any]) -> None:
        if future.status != "finished":
            self._inbox.put(("failed", number))

    def _hear_of_cluster(self, event: tuple[float, Any]) -> None:
        told = event[1]
        if isinstance(told, dict) and told.get("action") in ("add-worker", "remove-worker"):
            self._inbox.put((told["action"], told))

    def _understand(self, what: str, about: Any) -> None:
        if what == "ended":
            self._end(*about)
        elif what == "failed":
            self._fail(about)
        elif what == "told":
            self._events.append(Progressed(about[0], tuple(about[1])))
        elif what == "leaving" and about in self._workers:
            self._workers[about].leaving = True
        elif what == "add-worker":
            self._look_around()
        elif what == "remove-worker":
            self._lose(about["worker"], expected=about["expected"])

    def _look_around(self) -> None:
        """Get to know the workers that are new."""
        threads = self._client.nthreads()
        new = [address for address in threads if address not in self._workers]
        answers = self._client.run(hello, workers=new, on_error="return") if new else {}
        for address, answer in answers.items():
            if isinstance(answer, OSError):  # it is gone again
                continue
            slots = jobs_at_once(self._at_once, _fit(address, answer).gpus)
            self._workers[address] = _Worker(answer, min(slots, threads[address]))

    def _end(self, number: int, done: bool, result: bytes) -> None:
        """A job's end, as its worker tells it: that is one message, where fetching a result takes several."""
        if number in self._flying:
            self._land(number)[0].release()
            self._events.append(Ended(number, pickle.loads(result), None if done else Cancelled()))

    def _fail(self, number: int) -> None:
        """A job's end, as dask tells it, where it was an error."""
        if number not in self._flying:
            return
        future, address, worker = self._land(number)
        error = future.exception(timeout=_ANSWER_S) if future.status == "error" else None
        if error is None:
            raise WorkerUnfit(_NO_SCHEDULER)
        if isinstance(error, KilledWorker):
            self._events.append(WorkerGone(number, _lost(address, worker), blamed=not worker.leaving))
        else:
            self._events.append(Ended(number, None, error))

    def _land(self, number: int) -> tuple[Future[Any], str, _Worker]:
        future, address = self._flying.pop(number)
        worker = self._workers[address]
        worker.flying.discard(number)
        worker.alone = worker.alone and bool(worker.flying)
        return future, address, worker

    def _lose(self, address: str, expected: bool) -> None:
        worker = self._workers.pop(address, None)
        if worker is None:
            return
        for number in sorted(worker.flying):
            future, _ = self._flying.pop(number)
            future.release()  # bound to an address that is no more, it would wait for ever
            blamed = not (expected or worker.leaving)
            self._events.append(WorkerGone(number, _lost(address, worker), blamed))
        if not self._workers:
            self._note("the last worker is gone: waiting for new ones")


def _lost(address: str, worker: _Worker) -> WorkerLost:
    return WorkerLost(address, worker.hello.host, worker.hello.owner)


def _fit(address: str, answer: Any) -> Hello:
    """What a worker says of itself. Raises WorkerUnfit where it has other software than this process."""
    if not isinstance(answer, Hello):
        raise WorkerUnfit(f"the worker at {address} does not know avfuse as it is here: {answer}")
    here = versions()
    names = sorted(name for name in {*here, *answer.versions} if here.get(name) != answer.versions.get(name))
    if names:
        told = ", ".join(f"{name} {here.get(name)} here, {answer.versions.get(name)} there" for name in names)
        raise WorkerUnfit(f"the worker at {address} ({answer.host}) has other versions: {told}; install the same ones")
    return answer


@contextmanager
def open_dask_executor(
    client: Client, task: Task[Any, Any], at_once: int, stop: StopRequest, note: Note
) -> Iterator[DaskExecutor]:
    """The workers of a cluster, with the run made known to them."""
    spread = DaskExecutor(client, task, at_once, note)
    stop.wake = spread.wake
    try:
        yield spread
    finally:
        spread.close()
