"""--shard I/N: jobs split into equal parts by weight, the same on every machine, so that nobody needs to be asked.

Tested by tests/batch/test_sharding.py and tests/pipeline/runs/test_small.py.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Mapping
from typing import Any

import click

from ..shell.text import counted


def balanced(weights: Mapping[str, int], count: int) -> list[list[str]]:
    """Split names into `count` parts of nearly the same weight: each name is in one part; parts are sorted.

    The heaviest name first, each to the part that is lightest then, the first one of several: for whole numbers
    that depends on names and weights alone. Raises ValueError for a count below 1.
    """
    if count < 1:
        raise ValueError(f"there must be at least one part, got {count}")
    parts: list[list[str]] = [[] for _ in range(count)]
    loads = [(0, index) for index in range(count)]
    for name in sorted(weights, key=lambda name: (-weights[name], name)):
        load, index = loads[0]
        parts[index].append(name)
        # Names that weigh nothing are dealt out too.
        heapq.heapreplace(loads, (load + max(weights[name], 1), index))
    return [sorted(part) for part in parts]


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
