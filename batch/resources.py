"""The cores, the GPUs and the memory that this process may use.

Memory that tensors give back is kept for the next ones, instead of going to the system and coming from it again. A
network takes and frees the same megabytes for every batch. glibc learns to keep them, unless the environment sets how
much: dask starts its workers with MALLOC_TRIM_THRESHOLD_=65536, and then every batch costs thousands of page faults
(a quarter of the time on two cores; benchmarks/README.md). Few arenas: what one thread frees serves the others.
Tested by tests/batch/test_resources.py.
"""

from __future__ import annotations

import os
import platform
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

# From malloc.h, with what to set: blocks up to 32 MiB (its upper bound) come from the heap, which keeps 512 MiB.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_WANTED = {_M_MMAP_THRESHOLD: 32 << 20, _M_TRIM_THRESHOLD: 512 << 20, _M_ARENA_MAX: 2}

VISIBLE = "CUDA_VISIBLE_DEVICES"
_TIMEOUT_S = 10.0
_JOBS_A_GPU = 4

# Names of files and of lines in version 2 of control groups, then in version 1; of a group with all that are below it.
_LIMITS = ("memory.max", "memory.high", "memory.limit_in_bytes")
_USED = ("memory.current", "memory.usage_in_bytes")
_DROPPABLE = (("inactive_file", "active_file", "slab_reclaimable"), ("total_inactive_file", "total_active_file"))
# Version 1 knows the limits of the groups above, also of those outside a container.
_ABOVE = "hierarchical_memory_limit"


def keep_freed_memory() -> bool:
    """Make the allocator of this process keep what is freed, for good; False where it is not glibc's."""
    import ctypes  # noqa: PLC0415 - help does without it

    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(option, value) for option, value in _WANTED.items())


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def jobs_at_once(asked: int, gpus: int) -> int:
    """Jobs that a process does at once: as asked, else (0) one, or several where a GPU waits to be filled."""
    return asked or (_JOBS_A_GPU if gpus else 1)


def visible_gpus() -> list[str]:
    """What to put into CUDA_VISIBLE_DEVICES, one entry per GPU; empty where there is none."""
    given = os.environ.get(VISIBLE)
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    try:
        listing = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(number) for number, _ in enumerate(line for line in listing.splitlines() if line.startswith("GPU "))]


def free_bytes(processes: int = 1, root: Path = Path("/")) -> int:
    """Bytes that this process may take, where `processes` of them share what the machine and the job have.

    `root`: where `proc` and `sys` are. Never below 0.
    """
    import psutil  # noqa: PLC0415 - a sixth of what `extract --help` takes

    job = [int(psutil.virtual_memory().available)]
    for group in _groups(root):
        numbers: dict[str, int] = {}
        for name in (*_LIMITS, *_USED):
            text = "".join(_lines(group / name)[:1])
            if text.isdecimal():  # `max` is no limit
                numbers[name] = int(text)
        statistics: dict[str, int] = {}
        for line in _lines(group / "memory.stat"):
            pair = line.split()
            if len(pair) == 2 and pair[1].isdecimal():
                statistics[pair[0]] = int(pair[1])
        limits = [numbers[name] for name in _LIMITS if name in numbers]
        limits += [statistics[_ABOVE]] if _ABOVE in statistics else []
        used = next((numbers[name] for name in _USED if name in numbers), None)
        if used is not None and limits:
            # The page cache counts as free.
            names = next((names for names in reversed(_DROPPABLE) if names[0] in statistics), ())
            job.append(min(limits) - used + sum(statistics.get(name, 0) for name in names))
    # ulimits are each process's own.
    own = [min(job) // processes]
    memory = psutil.Process().memory_info()
    for kind, size in ((resource.RLIMIT_AS, memory.vms), (resource.RLIMIT_DATA, getattr(memory, "data", 0))):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            own.append(limit - size)
    return max(0, min(own))


def _groups(root: Path) -> Iterator[Path]:
    """Folders of the memory groups that the process is in, each followed by those around it."""
    # Version of each hierarchy of groups → the folder of it that is mounted, and the mount point.
    mounts: dict[int, tuple[Path, Path]] = {}
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        mount, (kind, _, options) = before.split(), (*after.split(), "", "", "")[:3]
        if len(mount) > 4 and kind == "cgroup2":
            mounts[2] = Path(mount[3]), Path(mount[4])
        elif len(mount) > 4 and kind == "cgroup" and "memory" in options.split(","):
            mounts[1] = Path(mount[3]), Path(mount[4])
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        version = 2 if number == "0" and not controllers else 1 if "memory" in controllers.split(",") else 0
        if version not in mounts:
            continue
        shown, mount_point = mounts[version]
        # In a container the path may be the host's (then the mount says which part of the tree it shows), or lead
        # out of what can be seen: what is mounted is then the container's own group.
        visible = Path(path).is_relative_to(shown) and ".." not in Path(path).parts
        below = Path(path).relative_to(shown) if visible else Path()
        for folder in (below, *below.parents):
            yield root / mount_point.relative_to("/") / folder


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:  # not this version, not this system, or a group that may not be looked into
        return []
