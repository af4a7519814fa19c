"""What a run uses of this machine: its device, the memory for features, threads, and the process to itself."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ...batch.protocols import JobContext
from ...batch.resources import free_bytes
from ...encoders.contract import Precision
from ...encoders.engine import choose_device
from ..config import RunConfig

_SHARE = 0.5  # of the free memory: the other half is the network's, and other people's
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_WAIT_S = 1.0
# torch draws from one generator a process: two calls that share a worker must not draw in turns.
_DRAWING = threading.Lock()


@dataclass(frozen=True)
class Room:
    """A device and the bytes that features may take there and in this machine's memory."""

    device: torch.device
    device_bytes: int
    host_bytes: int

    def place(self, size: int) -> str:
        """Where `size` bytes of features go: the device, `cpu`, or `store`, if they stay on disk."""
        if size > self.host_bytes:  # they come through memory on the way to the device
            return "store"
        return str(self.device) if size <= self.device_bytes else "cpu"


def room_of(run: RunConfig) -> Room:
    """The device of a run and the room there is. Raises ValueError if the device does not exist."""
    device = choose_device(run.device)
    limit = None if run.memory_gb is None else int(run.memory_gb * 1e9)
    host = int(free_bytes(run.processes) * _SHARE) if limit is None else limit
    if device.type != "cuda":
        return Room(device, host, host)
    free, _ = torch.cuda.mem_get_info(device)
    return Room(device, int(free * _SHARE) if limit is None else limit, host)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """Number format of the network's products; nothing changes under fp32."""
    dtype = _AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def find_compile_cache() -> None:
    """Let torch.compile keep its work in a folder it may write; by default it also needs the user's name."""
    given = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    folder = Path(given or f"{tempfile.gettempdir()}/torchinductor_{os.getuid()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="torchinductor-"))
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)


@contextmanager
def deterministic() -> Iterator[None]:
    """Algorithms that give the same numbers again on one device with one number of threads, as far as torch has them.

    If it has none, it warns and goes on.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its start
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    flash = torch.backends.cuda.flash_sdp_enabled()  # type: ignore[no-untyped-call]
    efficient = torch.backends.cuda.mem_efficient_sdp_enabled()  # type: ignore[no-untyped-call]
    cudnn = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    if torch.cuda.is_available():  # whose fast ways back through attention add up in no fixed order
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
        torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        torch.backends.cuda.enable_flash_sdp(flash)
        torch.backends.cuda.enable_mem_efficient_sdp(efficient)
        torch.backends.cuda.enable_cudnn_sdp(cudnn)


@contextmanager
def alone_in_process(context: JobContext) -> Iterator[None]:
    """Wait until no other run is trained in this process. Raises Cancelled."""
    context.check()
    while not _DRAWING.acquire(timeout=_WAIT_S):
        context.check()
    try:
        yield
    finally:
        _DRAWING.release()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """This many threads for torch's arithmetic; 0: as many as it has."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count:
            torch.set_num_threads(before)
