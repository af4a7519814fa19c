"""Where a run's jobs are done, as its options say. dask is imported only for a cluster.

Tested by tests/batch/cluster/test_executor.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import click

from .cluster.jobqueue import JobQueue, read_jobqueue
from .protocols import Executor, Task
from .resources import cores
from .signals import StopRequest


@dataclass(frozen=True)
class ExecutionTarget:
    """In this process (`workers` is 1), or on a cluster: workers of this machine, a scheduler, a queue's jobs."""

    workers: int = 1
    scheduler: str | None = None
    jobqueue: JobQueue | None = None

    @property
    def in_process(self) -> bool:
        """Whether jobs are done in this process."""
        return self.workers == 1 and self.scheduler is None and self.jobqueue is None

    @property
    def starting(self) -> str:
        """What is waited for before the first job, in words; nothing in this process."""
        if self.in_process:
            return ""
        return f"starting {self.workers} workers" if self.workers > 1 else "waiting for workers"

    def threads(self) -> int:
        """Threads for the arithmetic of one process; 0: as many as it may use cores."""
        if self.jobqueue is not None:
            return self.jobqueue.threads
        if self.scheduler is not None or self.workers == 1:
            return 0
        return max(1, cores() // self.workers)

    def processes(self) -> int:
        """Processes that share the memory of one machine, or of one job of a queue, as far as this process knows."""
        return self.workers if self.jobqueue is None else self.jobqueue.processes


def target_of(workers: int, scheduler: str | None, jobqueue: tuple[str, ...]) -> ExecutionTarget:
    """The options --workers, --scheduler and --jobqueue. Raises click.UsageError where they contradict each other."""
    try:
        queue = read_jobqueue(jobqueue)
    except ValueError as error:
        raise click.UsageError(f"jobqueue: {error}") from error
    if (workers > 1) + (scheduler is not None) + (queue is not None) > 1:
        raise click.UsageError("--workers, --scheduler and --jobqueue cannot be combined: give one of them")
    return ExecutionTarget(workers, scheduler, queue)


@contextmanager
def open_executor(
    target: ExecutionTarget, task: Task[Any, Any], at_once: int, on_gpus: bool, stop: StopRequest
) -> Iterator[Executor]:
    """The executor, ready for jobs, until the end.

    `at_once`: jobs a process does at once (0: one, on a cluster's GPU several); `on_gpus`: whether the jobs use GPUs.
    Raises WorkerUnfit where the cluster cannot be reached, or its workers cannot do the jobs.
    """
    if target.in_process:
        from .threads import ThreadExecutor  # noqa: PLC0415 - help does without threads

        with task.prepare() as do, closing(ThreadExecutor(do, max(1, at_once), stop)) as threads:
            yield threads
        return
    from .cluster import connect  # noqa: PLC0415 - dask only where it is used
    from .cluster.executor import DaskExecutor  # noqa: PLC0415

    if target.jobqueue is not None:
        opened = connect.queue_client(target.jobqueue, _note)
    elif target.scheduler is not None:
        opened = connect.remote_client(target.scheduler, _note)
    else:
        opened = connect.local_client(target.workers, at_once, on_gpus)
    with opened as client, closing(DaskExecutor(client, task, at_once, stop, _note)) as workers:
        yield workers


def _note(line: str) -> None:
    click.echo(f"note: {line}", err=True)
