"""What is freed is taken again without the system's help, also where dask has set the allocator otherwise."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be set so")

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


def test_freed_memory_is_used_again():
    assert page_faults("keep") < 100 < page_faults()
