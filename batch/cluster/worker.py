"""What runs in a worker's process: the shared things of a run, made once; its jobs; how to stop them.

Only what is small travels: jobs come, results go. Tested by tests/batch/cluster/test_executor.py.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import pickle
import platform
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distributed import Worker, WorkerPlugin, get_worker

from ...features_store.disk.owner import Owner
from ...shell.text import one_line
from ..protocols import Cancelled, JobContext, Task, WorkerUnfit
from ..resources import keep_freed_memory, visible_gpus
from ..torch_errors import torch_errors

_REPORT_EVERY_S = 2.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAME_EVERYWHERE = ("avfuse", "dask", "distributed", "numpy", "torch", "zarr")


@dataclass(frozen=True)
class Hello:
    """A worker's process: its host, who it is to claims, how many GPUs it has, and the versions that matter."""

    host: str
    owner: Owner
    gpus: int
    versions: dict[str, str]


def hello() -> Hello:
    """Who this process is."""
    return Hello(socket.gethostname(), Owner.current(), len(visible_gpus()), versions())


def versions() -> dict[str, str]:
    """The versions that must be the same on all machines of a run, lest it give other numbers, or none."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in _SAME_EVERYWHERE:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


class RunPlugin(WorkerPlugin):
    """A run on a worker, from the worker's start, or the run's, to the end of either.

    `run` is the name of the run, and of the topic to which its jobs report.
    """

    def __init__(self, run: str, task: Task[Any, Any]) -> None:
        self.name, self._task = run, task
        self._before: dict[int, Any] = {}

    def setup(self, worker: Worker) -> None:
        """Be ready for jobs; nothing is loaded yet."""
        _RUNS[self.name] = _Shared(self._task)
        # Ctrl-C goes to all processes of a terminal, a cluster's SIGTERM to all of a job: the nanny, who gets
        # it as well, closes its worker in order.
        if worker.nanny is not None and threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}

    def teardown(self, worker: Worker) -> None:
        """The worker or the run ends: stop the jobs, let go of what they share."""
        worker.log_event(self.name, ("closing", worker.address))
        shared = _RUNS.pop(self.name, None)
        if shared is not None:
            shared.halted.set()
            shared.close()
        for number, handler in self._before.items():
            signal.signal(number, handler)


async def halt(run: str) -> None:
    """Ask the jobs of a run on this worker to stop; a coroutine, for which the sender need not wait."""
    if run in _RUNS:
        _RUNS[run].halted.set()


def do_job(run: str, number: int, job: Any) -> None:
    """Do one job of a run, and send what came of it, or that it was stopped. Raises what the job raises."""
    worker, shared, done, result = get_worker(), _RUNS.get(run), False, None
    with contextlib.suppress(Cancelled):
        if shared is not None:
            context = JobContext(
                socket.gethostname(),
                shared.halted,
                lambda words: worker.log_event(run, ("progressed", (number, words))),
                _REPORT_EVERY_S,
            )
            result = shared.do(job, context)
            done = True
    worker.log_event(run, ("ended", (number, done, pickle.dumps(result))))


class _Shared:
    """What the jobs of a run share in this process: made by the first one, let go after the last."""

    def __init__(self, task: Task[Any, Any]) -> None:
        self.halted = threading.Event()
        self._task = task
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        self._do: Callable[[Any, JobContext], Any] | None = None
        self._active, self._closing = 0, False

    def do(self, job: Any, context: JobContext) -> Any:
        with self._lock:
            self._active += 1
        try:
            with self._lock:
                if self._do is None:
                    keep_freed_memory()
                    try:
                        with torch_errors("fewer workers"):
                            self._do = self._stack.enter_context(self._task.prepare())
                    except (OSError, ValueError, RuntimeError) as error:
                        raise WorkerUnfit(f"the worker on {socket.gethostname()}: {one_line(error)}") from None
                do = self._do
            return do(job, context)
        finally:
            with self._lock:
                self._active -= 1
            if self._closing:
                self.close()

    def close(self) -> None:
        """Now, or else after the last job, which calls this again."""
        self._closing = True
        with self._lock:
            if not self._active:
                self._stack.close()


_RUNS: dict[str, _Shared] = {}
