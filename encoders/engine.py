"""Which device computes, and the threads that run the networks on it.

They do so for all videos of a process, so that decoding, finding faces and embedding overlap:

    CPU   as many threads as cores, each with one batch of one video and one thread of torch's: nobody waits for
          another at a barrier, and a row never depends on how many cores there are or on what else runs; of patches
          of sound, which overlap, a batch is larger, and what they have in common is computed once
    GPU   two threads a network, on streams of their own; requests of all videos, in order of arrival, make batches
          of one size, so that while one is copied the other is computed

Tested by tests/encoders/test_engine.py and test_embed.py.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..shell.text import counted, kind_and_number
from .contract import AudioEncoder, Precision
from .views import Patches

Rows = NDArray[np.float32]
Inputs = NDArray[Any] | Patches
_MAX_QUEUE_DELAY_S = 0.003  # how long a batch that is not full waits for more
_THREADS_A_GPU_NETWORK = 2
# More is no faster on a core, and leaves the others without work at a video's end.
_MOST_ON_A_CORE = 16
# Of patches four times as many: each has most of its maps in common with the one before, and VGGish's linear layers,
# 270 MB that are read once a batch, take half the time.
_PATCHES_FOR_ONE = 4


class RowMaker(Protocol):
    """A network: inputs [N, ...] to rows float32 [N, dim]."""

    batch_size: int

    def rows(self, batch: Any) -> Rows:
        """Rows of a batch."""


class StateMaker:
    """An encoder of sound as a network of the engine: a batch of windows, of any one length, is one input."""

    batch_size = 1

    def __init__(self, encoder: AudioEncoder) -> None:
        self._encoder = encoder

    def rows(self, batch: NDArray[Any]) -> Rows:
        """States [1, B, K, dim] of windows [1, B, n]."""
        return self._encoder.states(batch[0])[None]


class CpuEngine:
    """A pool of threads; a batch is made of one video's inputs alone. `parallel`: batches that are computed at once."""

    def __init__(self, networks: Mapping[str, RowMaker], threads: int) -> None:
        self._networks, self.parallel = networks, threads
        self._pool = ThreadPoolExecutor(threads, "embed", initializer=torch.set_num_threads, initargs=(1,))

    def submit(self, name: str, inputs: Inputs) -> list[Future[Rows]]:
        """Rows of `inputs` [N, ...] from the network of a feature, in order, a batch at a time."""
        network = self._networks[name]
        size = min(network.batch_size, _MOST_ON_A_CORE)
        if isinstance(inputs, Patches):
            size *= _PATCHES_FOR_ONE
        return [self._pool.submit(network.rows, part) for part in parts(inputs, size)]

    def close(self) -> None:
        """End the threads; what has not begun is dropped."""
        self._pool.shutdown(cancel_futures=True)


class BatchingEngine:
    """Batches of one size, filled across videos; the device sees one shape only. `parallel`: of one network's."""

    parallel = _THREADS_A_GPU_NETWORK

    def __init__(self, networks: Mapping[str, RowMaker], device: torch.device) -> None:
        batchers = {id(network): DynamicBatcher(network, device) for network in networks.values()}
        self._batchers = {name: batchers[id(network)] for name, network in networks.items()}

    def submit(self, name: str, inputs: Inputs) -> list[Future[Rows]]:
        """Rows of `inputs` [N, ...] from the network of a feature, in order, at most a batch at a time."""
        return self._batchers[name].submit(inputs)

    def close(self) -> None:
        """End the threads; what has not begun is dropped."""
        for batcher in set(self._batchers.values()):
            batcher.close()


Engine = CpuEngine | BatchingEngine


def choose_device(name: str) -> torch.device:
    """The device called `auto`, `cpu`, `cuda` or `cuda:N`; `auto` is the GPU where there is one.

    A GPU comes with its number, as tensors name the device they are on. Raises ValueError for another name, or a GPU
    that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, number = kind_and_number(name)
    if kind == "cpu":
        return torch.device("cpu")
    num_gpus = torch.cuda.device_count()
    if number >= num_gpus:
        raise ValueError(
            f"there is no {name}: torch {torch.__version__} sees {counted(num_gpus, 'GPU')}; try --device cpu "
            "(`avfuse doctor` shows what there is)"
        )
    return torch.device("cuda", number)


def whole_float32(precision: Precision) -> AbstractContextManager[None]:
    """Under fp32, convolutions in whole float32 until the end: on a GPU torch takes TF32 by default, off by 1e-3.

    There is one switch a process. Threads that turned it a call at a time would turn it back under each other.
    """
    switched: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=True, allow_tf32=precision != "fp32")
    return switched


def make_engine(networks: Mapping[str, RowMaker], device: torch.device, threads: int) -> Engine:
    """The engine for a device; features that share a network share its batches."""
    return CpuEngine(networks, threads) if device.type == "cpu" else BatchingEngine(networks, device)


class DynamicBatcher:
    """One network's requests, put together."""

    def __init__(self, network: RowMaker, device: torch.device, threads: int = _THREADS_A_GPU_NETWORK) -> None:
        self._network, self._device = network, device
        self._queue: queue.SimpleQueue[tuple[Inputs, Future[Rows]] | None] = queue.SimpleQueue()
        self._held: tuple[Inputs, Future[Rows]] | None = None  # did not fit into the last batch
        self._taking = threading.Lock()
        self._closed = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, inputs: Inputs) -> list[Future[Rows]]:
        """A future for each part of `inputs` that is no larger than a batch."""
        requests = [(part, Future[Rows]()) for part in parts(inputs, self._network.batch_size)]
        for request in requests:
            self._queue.put(request)
        return [future for _, future in requests]

    def close(self) -> None:
        """End the threads; what waits is cancelled."""
        self._closed = True
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        on_gpu = self._device.type == "cuda"
        with torch.cuda.stream(torch.cuda.Stream(self._device)) if on_gpu else nullcontext():  # type: ignore[no-untyped-call]
            while requests := self._take():
                inputs = np.concatenate([part for part, _ in requests])
                missing = self._network.batch_size - len(inputs)
                if missing:
                    inputs = np.concatenate([inputs, np.zeros((missing, *inputs.shape[1:]), inputs.dtype)])
                try:
                    rows = self._network.rows(inputs)
                except (RuntimeError, ValueError) as error:  # out of memory, a broken driver: the videos' failure
                    for _, future in requests:
                        future.set_exception(error)
                    continue
                start = 0
                for part, future in requests:
                    future.set_result(rows[start : start + len(part)])
                    start += len(part)

    def _take(self) -> list[tuple[Inputs, Future[Rows]]]:
        """The next batch's requests; none at the end."""
        taken: list[tuple[Inputs, Future[Rows]]] = []
        with self._taking:
            room = self._network.batch_size
            while room and not self._closed:
                request, self._held = self._held, None
                if request is None:
                    # The first one is waited for, the others only for a moment.
                    with suppress(queue.Empty):
                        request = self._queue.get(timeout=_MAX_QUEUE_DELAY_S if taken else None)
                if request is None:
                    break
                if len(request[0]) > room:
                    self._held = request
                    break
                if request[1].set_running_or_notify_cancel():
                    taken.append(request)
                    room -= len(request[0])
        return taken


def parts(inputs: Inputs, size: int) -> Iterator[Inputs]:
    """`inputs` [N, ...] in slices of at most `size`."""
    return (inputs[start : start + size] for start in range(0, len(inputs), size))
