"""What the runs that one process does have in common: torch's threads, and its one generator.

Tested by tests/fusion/test_grid.py.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..batch.work import Pulse

_WAIT_S = 1.0
# torch draws from one generator a process: two calls that share a worker must not draw in turns.
_DRAWING = threading.Lock()


@contextmanager
def alone_in_process(pulse: Pulse) -> Iterator[None]:
    """Wait until no other run is done in this process. Raises batch.work.Stopped."""
    pulse.check()
    while not _DRAWING.acquire(timeout=_WAIT_S):
        pulse.check()
    try:
        yield
    finally:
        _DRAWING.release()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads for torch's arithmetic; 0: as many as it has."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count:
            torch.set_num_threads(before)
