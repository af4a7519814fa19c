"""Cores and GPUs that this process may use, found without loading a network library."""

from __future__ import annotations

import os
import subprocess

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
