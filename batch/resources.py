"""Memory that tensors give back is kept for the next ones, instead of going to the system and coming from it again.

A network takes and frees the same megabytes for every batch. glibc learns to keep them, unless it is told how much to
keep: dask starts its workers with MALLOC_TRIM_THRESHOLD_=65536, and then every batch costs thousands of page faults
(a quarter of the time on two cores; benchmarks/README.md). Few arenas: what one thread frees serves the others.
Tested by tests/batch/test_allocator.py.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil

# From malloc.h, with what to set: blocks up to 32 MiB (its upper bound) come from the heap, which keeps 512 MiB.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_WANTED = {_M_MMAP_THRESHOLD: 32 << 20, _M_TRIM_THRESHOLD: 512 << 20, _M_ARENA_MAX: 2}


def keep_freed_memory() -> bool:
    """Tell the allocator of this process, for good; False where it is not glibc's."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(option, value) for option, value in _WANTED.items())


VISIBLE = "CUDA_VISIBLE_DEVICES"
_TIMEOUT_S = 10.0
_JOBS_A_GPU = 4


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def jobs_at_once(asked: int, gpus: int) -> int:
    """Jobs that a process does at once: as asked, else (0) one, or several where a GPU waits to be filled."""
    return asked or (_JOBS_A_GPU if gpus else 1)


def visible_gpus() -> list[str]:
    """What to put into CUDA_VISIBLE_DEVICES, one entry a GPU; empty where there is none."""
    given = os.environ.get(VISIBLE)
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    try:
        said = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(number) for number, _ in enumerate(line for line in said.splitlines() if line.startswith("GPU "))]


# Version 2's words, and version 1's; of a group with all that are below it.
_LIMITS = ("memory.max", "memory.high", "memory.limit_in_bytes")
_USED = ("memory.current", "memory.usage_in_bytes")
_DROPPABLE = (("inactive_file", "active_file", "slab_reclaimable"), ("total_inactive_file", "total_active_file"))
# Version 1 knows the limits of the groups above, also of those outside a container.
_ABOVE = "hierarchical_memory_limit"


def free_bytes(processes: int = 1, root: Path = Path("/")) -> int:
    """Bytes that this process may take, where so many share what the machine and the job have.

    `root`: where `proc` and `sys` are. Never below 0.
    """
    shared: int = min([psutil.virtual_memory().available, *_left_in_job(root)])
    return max(0, min([shared // processes, *_left_to_process()]))


def _left_in_job(root: Path) -> Iterator[int]:
    for group in _groups(root):
        used = _number(group, *_USED)
        limits = [limit for name in _LIMITS if (limit := _number(group, name)) is not None]
        statistics = _statistics(group)
        limits += [statistics[_ABOVE]] if _ABOVE in statistics else []
        if used is not None and limits:
            words = next((words for words in reversed(_DROPPABLE) if words[0] in statistics), ())
            yield min(limits) - used + sum(statistics.get(word, 0) for word in words)


def _groups(root: Path) -> Iterator[Path]:
    """Folders of the memory groups that the process is in, each followed by those around it."""
    mounts = {version: (Path(at), Path(executor)) for version, at, executor in _mounts(root)}
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        version = 2 if number == "0" and not controllers else 1 if "memory" in controllers.split(",") else 0
        if version not in mounts:
            continue
        at, executor = mounts[version]
        # In a container the path may be the host's (then the mount says which part of the tree it shows), or lead
        # out of what can be seen: what is mounted is then the container's own group.
        seen = Path(path).is_relative_to(at) and ".." not in Path(path).parts
        inside = Path(path).relative_to(at) if seen else Path()
        for folder in (inside, *inside.parents):
            yield root / executor.relative_to("/") / folder


def _mounts(root: Path) -> Iterator[tuple[int, str, str]]:
    """Version of each hierarchy of groups that is mounted, which of its folders that shows, and where."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        mount, (kind, _, options) = before.split(), (*after.split(), "", "", "")[:3]
        if len(mount) > 4 and kind == "cgroup2":
            yield 2, mount[3], mount[4]
        elif len(mount) > 4 and kind == "cgroup" and "memory" in options.split(","):
            yield 1, mount[3], mount[4]


def _left_to_process() -> Iterator[int]:
    memory = psutil.Process().memory_info()
    for kind, used in ((resource.RLIMIT_AS, memory.vms), (resource.RLIMIT_DATA, getattr(memory, "data", 0))):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            yield limit - used


def _statistics(group: Path) -> dict[str, int]:
    pairs = (line.split() for line in _lines(group / "memory.stat"))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _number(group: Path, *names: str) -> int | None:
    """The first of these files that holds a number; `max` is none."""
    found = (line for name in names for line in _lines(group / name)[:1])
    return next((int(text) for text in found if text.isdecimal()), None)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:  # not this version, not this system, or a group that may not be looked into
        return []
