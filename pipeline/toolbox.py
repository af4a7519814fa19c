"""What every video of a run shares: settings, loaded networks, and what they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch

from ..batch.machine import cores
from .config import ExtractConfig, RunConfig
from .detect import FaceDetector
from .embed import Embedder, choose_device, load_embedders
from .engine import CpuEngine, Engine, make_engine
from .media import ffmpeg_version
from .provenance import identity
from .weights import WeightSource


@dataclass(frozen=True)
class Toolbox:
    """The networks by feature, the face detector (None: no faces wanted, or crops given), and their identity."""

    config: ExtractConfig
    fingerprint: str
    weights: Mapping[str, WeightSource]
    embedders: Mapping[str, Embedder]
    engine: Engine
    detector: FaceDetector | None
    stall_timeout_s: float
    threads_before: int

    @property
    def on_gpu(self) -> bool:
        """Whether the networks run on a GPU."""
        return not isinstance(self.engine, CpuEngine)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the threads, and give torch back those that it had."""
        self.engine.close()
        torch.set_num_threads(self.threads_before)


def make_toolbox(config: ExtractConfig, run: RunConfig, weights: dict[str, WeightSource]) -> Toolbox:
    """Load the networks. Raises MediaError without ffmpeg: better now than once a video.

    From here until it is closed torch has one thread wherever it is called: there are as many callers as cores.
    """
    ffmpeg_version()
    device = choose_device(run.device)
    embedders = load_embedders(config, weights, device, run.batch_size)
    detector = FaceDetector(device) if config.visual and not config.aligned else None
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    return Toolbox(
        config,
        identity(config, weights),
        weights,
        embedders,
        make_engine(embedders, device, run.threads or cores()),
        detector,
        run.stall_timeout_s,
        before,
    )
