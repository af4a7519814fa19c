"""A cluster whose workers are jobs of SLURM, PBS or SGE, started by dask-jobqueue.

    jobqueue: {kind: slurm, jobs: 8, cores: 4, memory: 16GB, walltime: 08:00:00, queue: gpu}

`kind` and `jobs` (workers to ask for) are ours; the rest are dask-jobqueue's own words.
Tested by tests/batch/cluster/test_jobqueue.py.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...shell.text import key_and_value
from ..protocols import WorkerUnfit

KINDS = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "sge": "SGECluster"}
_NEEDED = ("cores", "memory")


@dataclass(frozen=True)
class JobQueue:
    """`jobs` workers, each a job of a queueing system of this kind, with dask-jobqueue's settings.

    Raises ValueError for an unknown kind, less than one job, or settings without cores and memory of a worker.
    """

    kind: str
    jobs: int
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is one of {', '.join(KINDS)}, got {self.kind!r}")
        if not isinstance(self.jobs, int) or self.jobs < 1:
            raise ValueError(f"jobs is how many workers to ask for, got {self.jobs!r}")
        if missing := [name for name in _NEEDED if name not in self.settings]:
            raise ValueError(f"it must say {' and '.join(missing)} of a worker")

    @property
    def threads(self) -> int:
        """Cores of one worker process."""
        return max(1, int(self.settings["cores"]) // self.processes)

    @property
    def processes(self) -> int:
        """Worker processes of one job, which share its cores and its memory."""
        return int(self.settings.get("processes", 1))


def read_jobqueue(pairs: Sequence[str]) -> JobQueue | None:
    """The settings `KEY=VALUE`, values as in YAML; None without any. Raises ValueError."""
    import yaml  # noqa: PLC0415 - for this option alone

    settings: dict[str, Any] = {}
    for pair in pairs:
        key, text = key_and_value(pair)
        settings[key] = yaml.safe_load(text)
    if not settings:
        return None
    seconds = settings.get("walltime")
    if isinstance(seconds, int):  # YAML reads 12:00:00 as a number of seconds
        settings["walltime"] = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return JobQueue(settings.pop("kind", ""), settings.pop("jobs", 0), {"processes": 1, **settings})


def make_cluster(queue: JobQueue) -> Any:
    """The cluster, with no worker asked for yet. Raises WorkerUnfit without dask-jobqueue, ValueError."""
    if importlib.util.find_spec("dask_jobqueue") is None:
        raise WorkerUnfit("a cluster of jobs needs dask-jobqueue: pip install 'avfuse[jobqueue]'")
    import dask_jobqueue  # noqa: PLC0415 - an optional extra
    from dask_jobqueue import core  # noqa: PLC0415

    kind = getattr(dask_jobqueue, KINDS[queue.kind])
    makers = (kind, core.JobQueueCluster, kind.job_cls, core.Job)
    known = {name for maker in makers for name in inspect.signature(maker.__init__).parameters}
    if unknown := sorted(set(queue.settings) - known):
        raise ValueError(f"jobqueue: dask-jobqueue does not know {', '.join(unknown)}")
    scheduler = {"dashboard": False, "dashboard_address": ":0", "allowed_failures": 0}
    return kind(**{"scheduler_options": scheduler, **queue.settings})
