"""Memory as a job has it: control groups of both versions, laid out as they are found in the field, and ulimits.

What is freed is taken again without the system's help, also where dask has set the allocator otherwise.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from avfuse.batch.cluster.jobqueue import JobQueue
from avfuse.batch.resources import free_bytes
from avfuse.batch.target import ExecutionTarget

MB = 1 << 20
V1 = "35 32 0:32 {at} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
V2 = "41 31 0:38 {at} /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n"
NONE = 9223372036854771712  # what version 1 calls no limit


@pytest.fixture
def machine(tmp_path):
    """A root folder with a process in groups of these files; `at`: the part of the tree that is mounted."""

    def make(version: int, path: str, groups: dict[str, dict[str, object]], at: str = "/") -> Path:
        own = tmp_path / "proc/self"
        own.mkdir(parents=True)
        (own / "cgroup").write_text(f"0::{path}\n" if version == 2 else f"9:cpu:/\n4:hugetlb,memory:{path}\n0::/\n")
        (own / "mountinfo").write_text("23 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + (V1, V2)[version - 1].format(at=at))
        executor = tmp_path / "sys/fs/cgroup" / ("memory" if version == 1 else "")
        for group, files in groups.items():
            (executor / group).mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                (executor / group / name).write_text(f"{content}\n")
        return tmp_path

    return make


def v1(limit, used, cache=0, above=NONE):
    stat = f"cache {cache}\ntotal_inactive_file {cache - 5}\ntotal_active_file 5\nhierarchical_memory_limit {above}"
    return {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": used, "memory.stat": stat}


def v2(most, used, cache=0, high="max"):
    stat = f"anon {used - cache}\nfile {cache + 99}\nshmem 99\ninactive_file {cache - 7}\nactive_file 7"
    return {"memory.max": most, "memory.high": high, "memory.current": used, "memory.stat": stat}


class TestGroups:
    @pytest.mark.parametrize(
        ("version", "path", "at", "groups", "left"),
        [
            (1, "/slurm/job", "/", {"slurm/job": v1(700 * MB, 100 * MB)}, 600 * MB),
            (1, "/slurm/job", "/", {"slurm": v1(300 * MB, 50 * MB), "slurm/job": v1(NONE, 9 * MB)}, 250 * MB),
            (1, "/docker/1f", "/docker/1f", {"": v1(500 * MB, 100 * MB)}, 400 * MB),
            (1, "/docker/1f", "/", {"": v1(500 * MB, 100 * MB)}, 400 * MB),
            (1, "/job", "/", {"job": v1(NONE, 100 * MB, above=400 * MB)}, 300 * MB),
            (1, "/job", "/", {"job": v1(500 * MB, 450 * MB, cache=400 * MB)}, 450 * MB),
            (2, "/user/job", "/", {"user/job": v2(700 * MB, 100 * MB)}, 600 * MB),
            (2, "/user/job", "/", {"user": v2(400 * MB, 350 * MB), "user/job": v2(700 * MB, 9 * MB)}, 50 * MB),
            (2, "/job", "/", {"job": v2("max", 100 * MB, high=300 * MB)}, 200 * MB),
            (2, "/job", "/", {"job": v2(700 * MB, 100 * MB, high=300 * MB)}, 200 * MB),
            (2, "/job", "/", {"job": v2(500 * MB, 450 * MB, cache=400 * MB)}, 450 * MB),
            (2, "/", "/", {"": v2(600 * MB, 100 * MB)}, 500 * MB),
            (2, "/../../other", "/", {"": v2(600 * MB, 100 * MB)}, 500 * MB),
            (2, "/job", "/", {"job": v2(500 * MB, 700 * MB)}, 0),
        ],
        ids=[
            "v1", "v1 limit above", "v1 container", "v1 path of the host", "v1 limit out of sight", "v1 page cache",
            "v2", "v2 limit above", "v2 high", "v2 high below max", "v2 page cache", "v2 container", "v2 out of sight",
            "v2 over its limit",
        ],
    )  # fmt: skip
    def test_what_is_left(self, machine, version, path, at, groups, left):
        assert free_bytes(root=machine(version, path, groups, at)) == left

    @pytest.mark.parametrize("files", [{}, v2("max", MB), {"memory.max": "odd"}, v1(NONE, MB)])
    def test_without_a_limit_it_is_what_the_machine_has(self, machine, files):
        free = free_bytes(root=machine(2, "/job", {"job": files}))
        assert free == pytest.approx(psutil.virtual_memory().available, rel=0.2)

    def test_a_system_without_groups(self, tmp_path):
        assert free_bytes(root=tmp_path) == pytest.approx(psutil.virtual_memory().available, rel=0.2)

    def test_processes_share_it(self, machine):
        root = machine(2, "/job", {"job": v2(700 * MB, 100 * MB)})
        assert free_bytes(3, root) == 200 * MB

    def test_processes_of_one_job(self):
        queue = JobQueue("slurm", 8, {"cores": 8, "memory": "16GB", "processes": 4})
        assert ExecutionTarget(jobqueue=queue).processes() == 4
        assert ExecutionTarget(workers=3).processes() == 3
        assert ExecutionTarget(scheduler="tcp://head:8786").processes() == 1


LIMITED = """
import resource, psutil
from avfuse.batch.resources import free_bytes
before = free_bytes()
used = psutil.Process().memory_info()
resource.setrlimit(resource.{kind}, (used.{used} + (200 << 20),) * 2)
print(before >> 20, free_bytes() >> 20, free_bytes(4) >> 20)
taken = bytearray(100 << 20)
print(free_bytes() >> 20)
"""


@pytest.mark.parametrize(("kind", "used"), [("RLIMIT_AS", "vms"), ("RLIMIT_DATA", "data")])
def test_limits_of_a_process(kind, used):
    """As `ulimit -v` and `ulimit -d` set them: each process has its own, what it takes counts."""
    code = LIMITED.format(kind=kind, used=used)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after, of_four, left = map(int, done.stdout.split())
    assert before > 1000
    assert 180 <= after <= 200
    assert after - 5 <= of_four <= 200
    assert 80 <= left <= 100


def test_the_features_that_a_job_has_no_room_for_are_streamed():
    """Half of what is left is theirs."""
    code = (
        "import resource, psutil, torch\nfrom avfuse.fusion.config import RunConfig\n"
        "from avfuse.fusion.data.runtime import room_of\n"
        "limit = psutil.Process().memory_info().vms + (400 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\nroom = room_of(RunConfig('cpu'))\n"
        "print(room.host_bytes >> 20, room.place(150 << 20), room.place(250 << 20))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    half, *places = done.stdout.split()
    assert 180 <= int(half) <= 200
    assert places == ["cpu", "store"]


FAULTS = """
import resource, sys
import numpy as np
from avfuse.batch.resources import keep_freed_memory
if "keep" in sys.argv:
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def use():
    for megabytes in (1, 8, 16, 4):
        np.empty(megabytes << 20, np.uint8).fill(1)
use()
before = faults()
for _ in range(50):
    use()
print(faults() - before)
"""


def page_faults(*words: str) -> int:
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}  # as dask's nanny starts a worker
    done = subprocess.run([sys.executable, "-c", FAULTS, *words], env=environment, capture_output=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be set so")
def test_freed_memory_is_used_again():
    assert page_faults("keep") < 100 < page_faults()
