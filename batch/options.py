"""The options that say where and how jobs are done, the same for every command that has many.

Tested by tests/batch/test_sharding.py, tests/batch/cluster/test_executor.py and test_jobqueue.py.
"""

from __future__ import annotations

import os
from typing import Any

import click

from ..shell.options import MergedOption
from ..shell.text import counted
from .cluster.jobqueue import read_jobqueue
from .target import ExecutionTarget


class Shard(click.ParamType[tuple[int, int]]):
    """I/N, or `auto` for the part that is this task's of its SLURM array."""

    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Two numbers with 0 ≤ I < N."""
        if isinstance(value, tuple):
            return value
        try:
            text = _part_of_array() if value == "auto" else str(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            why = "; a part of an array? Then give --shard I/N of the whole one" if value == "auto" else ""
            self.fail(f"{text!r} is not I/N with 0 ≤ I < N{why}", param, ctx)
        return int(index), int(count)


def batch_options(noun: str) -> tuple[Any, ...]:
    """--workers, --scheduler, --jobqueue, --shard and --retries, for jobs called `noun` (`videos`)."""
    return (
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            metavar="N",
            help="Processes on this machine, one per GPU; 1 is this process itself.",
        ),
        click.option(
            "--scheduler", metavar="ADDRESS", help="Use the workers of this dask scheduler, tcp://… [default: none]"
        ),
        click.option(
            "--jobqueue",
            cls=MergedOption,
            multiple=True,
            metavar="KEY=VALUE",
            help="Workers as jobs of SLURM, PBS or SGE: kind, jobs, cores, memory, walltime, queue … (repeatable; in a "
            "--config file a section). Needs avfuse[jobqueue]. [default: none]",
        ),
        click.option(
            "--shard",
            type=Shard(),
            default="0/1",
            metavar="I/N",
            show_default=True,
            help="Do part I of N; `auto` takes both from SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT.",
        ),
        click.option(
            "--retries",
            type=click.IntRange(min=0),
            metavar="N",
            default=1,
            show_default=True,
            help=f"How often to try {noun} again that failed for a reason that may pass.",
        ),
    )


def target_of(workers: int, scheduler: str | None, jobqueue: tuple[str, ...]) -> ExecutionTarget:
    """The options --workers, --scheduler and --jobqueue. Raises click.UsageError where they contradict each other."""
    try:
        queue = read_jobqueue(jobqueue)
    except ValueError as error:
        raise click.UsageError(f"jobqueue: {error}") from error
    if (workers > 1) + (scheduler is not None) + (queue is not None) > 1:
        raise click.UsageError("--workers, --scheduler and --jobqueue cannot be combined: give one of them")
    return ExecutionTarget(workers, scheduler, queue)


def _part_of_array() -> str:
    """I/N of this task in its SLURM array, whatever its first number and its step; 0/1 outside of one.

    Raises ValueError where the array's numbers are not evenly spaced: no task knows then how many come before it.
    """
    array = {name: os.environ.get(f"SLURM_ARRAY_TASK_{name}", "") for name in ("ID", "COUNT", "MIN", "MAX", "STEP")}
    if not (array["ID"].isdecimal() and array["COUNT"].isdecimal()):
        if array["ID"]:
            click.echo(
                "note: --shard auto does all: SLURM_ARRAY_TASK_ID is set, but SLURM_ARRAY_TASK_COUNT is not a number; "
                "give each task its --shard I/N",
                err=True,
            )
        return "0/1"
    task, count, first = int(array["ID"]), int(array["COUNT"]), int(array["MIN"] or 0)
    step = max(1, int(array["STEP"] or 1))
    last = int(array["MAX"]) if array["MAX"] else first + (count - 1) * step
    # The last number is the one asked for or the last one there is: 0-9:4 has the tasks 0, 4 and 8.
    if (task - first) % step or (last - first) // step + 1 != count:
        raise ValueError(
            f"the SLURM array has {counted(count, 'task')} with numbers from {first} to {last}, not evenly spaced: "
            "use --array=0-N, or give each task its --shard I/N"
        )
    return f"{(task - first) // step}/{count}"
