"""Which device computes: the one chooser behind every `--device`.

Tested by tests/encoders/test_devices.py.
"""

from __future__ import annotations

import torch

from ..shell.text import counted
from .table import Precision


def choose_device(name: str) -> torch.device:
    """The device called `auto`, `cpu`, `cuda` or `cuda:N`; `auto` is the GPU where there is one.

    A GPU comes with its number, as tensors name the device they are on. Raises ValueError for another name, or a GPU
    that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, colon, number = name.partition(":")
    if name == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or number.isdecimal() != bool(colon):
        raise ValueError(f"--device is auto, cpu, cuda or cuda:N, got {name!r}")
    num_gpus = torch.cuda.device_count()
    if int(number or 0) >= num_gpus:
        raise ValueError(
            f"there is no {name}: torch {torch.__version__} sees {counted(num_gpus, 'GPU')}; try --device cpu "
            "(`avfuse doctor` shows what there is)"
        )
    return torch.device("cuda", int(number or 0))


def refuse_precision(device: torch.device, precision: Precision) -> None:
    """Raises ValueError for fp16 without a GPU."""
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("the precision fp16 needs a GPU; on the CPU take fp32 (exact) or bf16")
