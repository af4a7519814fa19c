"""A dask cluster to send jobs to: workers of this machine, an existing scheduler, or jobs of a queueing system.

Tested by tests/batch/cluster/test_executor.py, test_jobqueue.py and tests/test_cluster_guide.py.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import dask
from distributed import Client, Nanny, Scheduler, SpecCluster, Status
from distributed.versions import VersionMismatchWarning

from ...shell.text import one_line
from ..protocols import WorkerUnfit
from ..resources import VISIBLE, cores, jobs_at_once, visible_gpus
from .jobqueue import JobQueue, make_cluster

_CONNECT_S = 15.0
_START_S = 600.0  # as long as workers of this machine may take to start: it may be busy with other things
_CLOSE_S = 2.0
_WAIT_LINE_S = 30.0
_THREAD_WORDS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
Note = Callable[[str], None]


@contextmanager
def local_client(workers: int, at_once: int, on_gpus: bool) -> Iterator[Client]:
    """A client of workers on this machine, each a process with its share of the cores, and one GPU if there are any.

    `at_once`: jobs a process does at once (0: one, on a GPU several). Raises WorkerUnfit where none can be started.
    """
    gpus = visible_gpus() if on_gpus else []
    specs = {}
    for number in range(workers):
        visible = {VISIBLE: gpus[number % len(gpus)]} if gpus else {}
        env = {**dict.fromkeys(_THREAD_WORDS, str(max(1, cores() // workers))), **visible}
        options = {
            "nthreads": jobs_at_once(at_once, len(gpus)),
            "env": env,
            "memory_limit": 0,
            "dashboard": False,
            "host": "127.0.0.1",
            "silence_logs": logging.CRITICAL,
        }
        specs[number] = {"cls": Nanny, "options": options}
    scheduler = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0", "allowed_failures": 0}
    # `env` is set in the worker's process, and not before it starts, as dask does: that would set it in this one too.
    with dask.config.set({"distributed.nanny.pre-spawn-environ": {}}):
        try:
            # Within this time processes that start find each other; workers keep it as they keep all of this.
            with dask.config.set({"distributed.comm.timeouts.connect": f"{_START_S:g}s"}):
                cluster = SpecCluster(
                    workers=specs, scheduler={"cls": Scheduler, "options": scheduler}, silence_logs=logging.CRITICAL
                )
        except RuntimeError as error:
            reason = one_line(error.__cause__ or error)  # dask's own words are that something "failed to start"
            raise WorkerUnfit(
                f"no workers can be started on this machine: {reason}; go on without --workers"
            ) from error
        try:
            with _client(cluster, _START_S) as client:
                yield client
        finally:
            with suppress(TimeoutError):  # a busy machine takes long to end a process: what was done is done
                cluster.close()


@contextmanager
def remote_client(address: str, note: Note) -> Iterator[Client]:
    """A client of a scheduler that runs already, once it has a worker. Raises WorkerUnfit where it does not answer."""
    with _client(address, _CONNECT_S) as client:
        _wait_for_a_worker(client, address, note)
        yield client


@contextmanager
def queue_client(queue: JobQueue, note: Note) -> Iterator[Client]:
    """A client of a scheduler in this process, whose workers are jobs in a queue, once the first of them runs.

    Raises WorkerUnfit with the queueing system's own words where it refuses the jobs.
    """
    with make_cluster(queue) as cluster:
        loggers = logging.getLogger("asyncio"), logging.getLogger("tornado.application")
        levels = [logger.level for logger in loggers]
        for logger in loggers:  # what dask raises in its loop is said once, by us
            logger.setLevel(logging.CRITICAL + 1)
        try:
            cluster.scale(jobs=queue.jobs)
            cluster.sync(_submitted, cluster)
        except (RuntimeError, ValueError, OSError) as error:
            raise WorkerUnfit(f"the jobs cannot be put into the {queue.kind} queue: {one_line(error)}") from error
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
        with _client(cluster, _CONNECT_S) as client:
            _wait_for_a_worker(client, f"the {queue.kind} queue", note)
            yield client


async def _submitted(cluster: Any) -> None:
    """Find what became of the jobs: dask keeps those that could not be put into the queue, and their errors."""
    with suppress(RuntimeError, ValueError, OSError):
        await cluster
    unborn = {name: job for name, job in cluster.workers.items() if job.job_id is None}
    for name, job in unborn.items():
        del cluster.workers[name], cluster.worker_spec[name]
        job.status = Status.failed  # else closing the cluster stumbles over it
    if unborn:
        await next(iter(unborn.values())).start()


@contextmanager
def _client(scheduler: Any, timeout_s: float) -> Iterator[Client]:
    """A client of a cluster, or of the scheduler at an address, once it answers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VersionMismatchWarning)  # `executor` says it, and stops
        try:
            client = Client(scheduler, timeout=timeout_s, set_as_default=False)
        except (OSError, ValueError) as error:
            raise WorkerUnfit(f"no dask scheduler answers at {scheduler}: {one_line(error)}") from error
    try:
        yield client
    finally:
        with suppress(TimeoutError):  # the scheduler has ended, or the machine is busy: nothing is lost
            client.close(timeout=_CLOSE_S)


def _wait_for_a_worker(client: Client, source: str, note: Note) -> None:
    while not client.nthreads():
        note(f"waiting for a worker of {source}")
        with suppress(TimeoutError):
            client.wait_for_workers(1, timeout=_WAIT_LINE_S)
