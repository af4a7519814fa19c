"""Memory that this process may still take: of the machine, of the job that it runs in, of its own limits.

    machine      what the kernel calls available
    job          each control group (cgroup) from the process's own up to the outermost one that can be seen: its limit
                 less what is used and cannot be dropped; the page cache of files counts as used there, and is free
    process      ulimit -v (address space), ulimit -d (data): each process has them for itself

Batch systems and containers set the second (`--mem` of SLURM, `docker run --memory`), some clusters the third.
Tested by tests/batch/test_memory.py.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import psutil

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
    mounts = {version: (Path(at), Path(place)) for version, at, place in _mounts(root)}
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        version = 2 if number == "0" and not controllers else 1 if "memory" in controllers.split(",") else 0
        if version not in mounts:
            continue
        at, place = mounts[version]
        # In a container the path may be the host's (then the mount says which part of the tree it shows), or lead
        # out of what can be seen: what is mounted is then the container's own group.
        seen = Path(path).is_relative_to(at) and ".." not in Path(path).parts
        inside = Path(path).relative_to(at) if seen else Path()
        for folder in (inside, *inside.parents):
            yield root / place.relative_to("/") / folder


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
