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
_CLOSE_S = 2.0
_WAIT_LINE_S = 30.0
_THREAD_WORDS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
Note = Callable[[str], None]


@contextmanager
def local_client(workers: int, at_once: int, on_gpus: bool) -> Iterator[Client]:
    """Workers of this machine, one a process; each with its share of the cores, and with one GPU if there are any.

    `at_once`: jobs a process does at once (0: one, on a GPU several).
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
        }
        specs[number] = {"cls": Nanny, "options": {**options, "silence_logs": logging.CRITICAL}}
    scheduler = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0", "allowed_failures": 0}
    with _local_cluster(specs, scheduler) as cluster, _client(cluster) as client:
        yield client


@contextmanager
def _local_cluster(workers: dict[int, Any], scheduler: dict[str, Any]) -> Iterator[SpecCluster]:
    # Not before the process starts, as dask does: that would set them in this process too.
    with dask.config.set({"distributed.nanny.pre-spawn-environ": {}}):
        try:
            cluster = SpecCluster(
                workers=workers, scheduler={"cls": Scheduler, "options": scheduler}, silence_logs=logging.CRITICAL
            )
        except RuntimeError as error:
            raise WorkerUnfit(f"no workers can be started on this machine: {one_line(error)}") from error
        with cluster:
            yield cluster


@contextmanager
def remote_client(address: str, note: Note) -> Iterator[Client]:
    """A scheduler that is there, when it has a worker. Raises WorkerUnfit where it does not answer."""
    with _client(address) as client:
        _wait_for_a_worker(client, address, note)
        yield client


@contextmanager
def queue_client(queue: JobQueue, note: Note) -> Iterator[Client]:
    """A scheduler here, whose workers are jobs that are put into a queue; when the first of them runs."""
    with make_cluster(queue) as cluster:
        _submit(cluster, queue)
        with _client(cluster) as client:
            _wait_for_a_worker(client, f"the {queue.kind} queue", note)
            yield client


def _submit(cluster: Any, queue: JobQueue) -> None:
    """Put the jobs into the queue. Raises WorkerUnfit with the queueing system's own words."""
    told = logging.getLogger("asyncio"), logging.getLogger("tornado.application")
    before = [logger.level for logger in told]
    for logger in told:  # what dask raises in its loop is said once, by us
        logger.setLevel(logging.CRITICAL + 1)
    try:
        cluster.scale(jobs=queue.jobs)
        cluster.sync(_submitted, cluster)
    except (RuntimeError, ValueError, OSError) as error:
        raise WorkerUnfit(f"the jobs cannot be put into the {queue.kind} queue: {one_line(error)}") from error
    finally:
        for logger, level in zip(told, before, strict=True):
            logger.setLevel(level)


async def _submitted(cluster: Any) -> None:
    """Hear what became of the jobs: dask keeps those that could not be put into the queue, and their errors."""
    with suppress(RuntimeError, ValueError, OSError):
        await cluster
    unborn = {name: job for name, job in cluster.workers.items() if job.job_id is None}
    for name, job in unborn.items():
        del cluster.workers[name], cluster.worker_spec[name]
        job.status = Status.failed  # else closing the cluster stumbles over it
    if unborn:
        await next(iter(unborn.values())).start()


@contextmanager
def _client(where: Any) -> Iterator[Client]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VersionMismatchWarning)  # `spread` says it, and stops
        try:
            client = Client(where, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise WorkerUnfit(f"no dask scheduler answers at {where}: {one_line(error)}") from error
    try:
        yield client
    finally:
        with suppress(TimeoutError):  # a scheduler that is gone, or a machine that is busy: nothing is lost
            client.close(timeout=_CLOSE_S)


def _wait_for_a_worker(client: Client, executor: str, note: Note) -> None:
    while not client.nthreads():
        note(f"waiting for a worker of {executor}")
        try:
            client.wait_for_workers(1, timeout=_WAIT_LINE_S)
        except TimeoutError:
            continue
