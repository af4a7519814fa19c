"""What every video of a run shares: settings, loaded networks, and what they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .config import ExtractConfig, RunConfig
from .detect import FaceDetector
from .embed import Embedder, choose_device, load_embedders
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
    detector: FaceDetector | None
    stall_timeout_s: float


def make_toolbox(config: ExtractConfig, run: RunConfig, weights: dict[str, WeightSource]) -> Toolbox:
    """Load the networks. Raises MediaError without ffmpeg: better now than once a video."""
    ffmpeg_version()
    device = choose_device(run.device)
    embedders = load_embedders(config, weights, device, run.batch_size)
    detector = FaceDetector(device) if config.visual and not config.aligned else None
    return Toolbox(config, identity(config, weights), weights, embedders, detector, run.stall_timeout_s)
