"""Memory that tensors give back is kept for the next ones, instead of going to the system and coming from it again.

A network takes and frees the same megabytes for every batch. glibc learns to keep them, unless it is told how much to
keep: dask starts its workers with MALLOC_TRIM_THRESHOLD_=65536, and then every batch costs thousands of page faults
(a quarter of the time on two cores; benchmarks/README.md). Few arenas: what one thread frees serves the others.
Tested by tests/batch/test_allocator.py.
"""

from __future__ import annotations

import ctypes
import platform

# From malloc.h, with what to set: blocks up to 32 MiB (its upper bound) come from the heap, which keeps 512 MiB.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_WANTED = {_M_MMAP_THRESHOLD: 32 << 20, _M_TRIM_THRESHOLD: 512 << 20, _M_ARENA_MAX: 2}


def keep_freed_memory() -> bool:
    """Tell the allocator of this process, for good; False where it is not glibc's."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(option, value) for option, value in _WANTED.items())
