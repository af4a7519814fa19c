"""The networks of a run, loaded once in a process for all its videos, and the threads that run them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ..batch.allocator import keep_freed_memory
from ..batch.machine import cores
from .config import ExtractConfig, RunConfig
from .detect import FaceDetector
from .embed import Embedder, choose_device, load_embedders
from .engine import Engine, make_engine
from .weights import WeightSource


@dataclass(frozen=True)
class Networks:
    """The networks by feature, the engine that runs them, the face detector (None: no faces wanted, or crops given)."""

    embedders: Mapping[str, Embedder]
    engine: Engine
    detector: FaceDetector | None
    on_gpu: bool


@contextmanager
def open_networks(config: ExtractConfig, run: RunConfig, weights: dict[str, WeightSource]) -> Iterator[Networks]:
    """Load them, until the end. Raises WeightsInvalid, ValueError.

    Until then torch has one thread wherever it is called: there are as many callers as cores. The process keeps the
    memory that it frees, for good.
    """
    keep_freed_memory()
    device = choose_device(run.device)
    embedders = load_embedders(config, weights, device, run.batch_size)
    detector = FaceDetector(device) if config.visual and not config.aligned else None
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    engine = make_engine(embedders, device, run.threads or cores())
    try:
        yield Networks(embedders, engine, detector, device.type != "cpu")
    finally:
        engine.close()
        torch.set_num_threads(before)
