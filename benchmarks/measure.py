"""Run a command to its end; measure its wall time and the peak memory of its largest process."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """Wall time in s and peak resident memory in MiB of one command."""

    seconds: float
    peak_mib: float


def run(command: list[str], log: Path | None = None) -> Run:
    """Run a command in a child of its own, so that its peak is not mixed with another's."""
    began_s = time.monotonic()
    with open(log or os.devnull, "ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return Run(time.monotonic() - began_s, usage.ru_maxrss / 1024)


def avfuse(*words: str) -> list[str]:
    """The command line of this avfuse."""
    return [sys.executable, "-m", "avfuse", *words]


def machine() -> str:
    """What the figures were measured on."""
    parts = [f"{os.cpu_count()} cores {platform.machine()}", f"Python {platform.python_version()}"]
    parts += [f"{name} {version(name)}" for name in ("torch", "zarr", "numpy")]
    first = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True).stdout.split()[2]
    day = time.strftime("%Y-%m-%d")
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return ", ".join([*parts, f"ffmpeg {first}", f"{memory_gib:.0f} GiB", day])


def own_peak_mib() -> float:
    """Peak resident memory of this process, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
