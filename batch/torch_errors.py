"""What torch's errors mean to a user, in one line: no memory, a busy GPU, no driver for it, no compiler.

torch raises RuntimeError for all of them, and may say a hundred lines. They are distinguished by their words, so
that torch is not loaded. Tested by tests/batch/test_torch_errors.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_NO_MEMORY = ("out of memory", "allocate memory", "ALLOC_FAILED", "not enough memory")
_BUSY = ("busy or unavailable",)
_DRIVER = ("NVIDIA driver", "driver version", "driver/library version", "no kernel image", "no CUDA-capable device")
_NO_COMPILER = ("No working C++ compiler", "Failed to find C compiler", "working triton installation")
_COMPILING = ("torch._dynamo.", "torch._inductor.", "triton.")
# RuntimeErrors whose own words say what is the matter.
_CLEAR = ("avfuse.", "click.")
_MOST_LETTERS = 300


class ComputeError(ValueError):
    """torch cannot compute; `is_transient` where others may give back what is missing: memory, a GPU."""

    def __init__(self, reason: str, is_transient: bool = False) -> None:
        super().__init__(reason)
        self.is_transient = is_transient


@contextmanager
def torch_errors(less: str) -> Iterator[None]:
    """Turn what torch raises, and lack of memory, into ComputeError; also a decorator.

    `less`: what takes less memory (`a smaller --batch-size`).
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if f"{type(error).__module__}.".startswith(_CLEAR):
            raise
        raise compute_error(error, less) from error


def compute_error(error: RuntimeError | MemoryError, less: str) -> ComputeError:
    """What an error of torch means, and what to do."""
    text = str(error)
    said = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)[:_MOST_LETTERS]
    lacks_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if lacks_memory or any(word in text for word in _NO_MEMORY):
        return ComputeError(
            f"the network and its batches do not fit into memory: try {less} ({said})", is_transient=True
        )
    if any(word in text for word in _BUSY):
        fix = "wait for it, or name another one by --device cuda:N, or --device cpu"
        return ComputeError(f"the GPU is held by another job: {fix} ({said})", is_transient=True)
    if any(word in text for word in _DRIVER):
        return ComputeError(f"this torch cannot use the GPU: update its driver, or use --device cpu ({said})")
    if any(word in text for word in _NO_COMPILER):
        return ComputeError(f"--compile needs a C++ compiler: install g++, or leave out --compile ({said})")
    if type(error).__module__.startswith(_COMPILING):
        return ComputeError(f"the network cannot be compiled on this machine: leave out --compile ({said})")
    return ComputeError(f"{type(error).__name__}: {said}")
