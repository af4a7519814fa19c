"""What each trial weighs when videos are shared out: its duration, asked of ffprobe, which decodes nothing.

Tested by tests/pipeline/test_plan.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .jobs import Job
from .media import MediaError, probe

_PROBES_AT_ONCE = 8


def weights_ms(jobs: Sequence[Job]) -> dict[str, int]:
    """Trial → duration in ms; a video that does not tell one counts by its size, at the rate of those that do.

    In whole numbers, and from the files alone, so that every machine comes to the same. Raises MediaError where
    ffprobe gives no answer in time: a guess would split the work otherwise than the other machines do.
    """
    paths = sorted({job.video for job in jobs})
    with ThreadPoolExecutor(_PROBES_AT_ONCE) as pool:
        durations = dict(zip(paths, pool.map(_duration_ms, paths), strict=True))
    sizes = {job.video: job.size_bytes for job in jobs}
    known_ms = sum(duration for duration in durations.values() if duration)
    known_bytes = sum(sizes[path] for path in paths if durations[path])
    return {job.trial: durations[job.video] or _by_size(job.size_bytes, known_ms, known_bytes) for job in jobs}


def _by_size(size_bytes: int, known_ms: int, known_bytes: int) -> int:
    return size_bytes * known_ms // known_bytes if known_ms and known_bytes else size_bytes


def _duration_ms(path: Path) -> int | None:
    try:
        duration_s = probe(path).duration_s
    except MediaError as error:
        if error.may_pass:
            raise
        return None
    return round(duration_s * 1000) if duration_s and duration_s > 0 else None
