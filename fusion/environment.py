"""Where a run was made: versions, machine, device."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import version

import torch

from ..features_store.types import JsonValue
from .config import RunConfig
from .data import Dataset

_PACKAGES = ("avfuse", "torch", "numpy", "zarr", "safetensors")


def environment(data: Dataset, run: RunConfig, command: str) -> dict[str, JsonValue]:
    """What environment.json says of the last call that trained the run."""
    device = data.labels.device
    return {
        "command": command,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "precision": run.precision,
        "compiled": run.compile,
        "threads": torch.get_num_threads(),
        "features_at": data.place,
        "versions": {name: version(name) for name in _PACKAGES},
    }
