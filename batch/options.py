"""The options that say where and how jobs are done, the same for every command that has many."""

from __future__ import annotations

from typing import Any

import click

from ..shell.options import MergedOption
from .sharding import Shard


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
