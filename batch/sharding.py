"""--shard I/N: jobs split into equal parts by weight, the same on every machine, so that nobody needs to be asked.

Tested by tests/batch/test_sharding.py.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping


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
