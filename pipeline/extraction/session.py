"""The networks of a run, loaded once in a process for all its videos, and the threads that run them.

Tested by tests/encoders/test_engine.py and tests/pipeline/extraction/test_extract.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...batch.resources import cores, keep_freed_memory
from ...encoders.plugins import use_files
from ...encoders.table import feature
from ...encoders.weights.resolve import WeightSource
from ...features_store.schema import JsonValue
from ..audio.denoise import check_denoise
from ..config import ExtractConfig, RunConfig
from ..media.process import ffmpeg_version
from .provenance import recorded

if TYPE_CHECKING:
    from ...encoders.embed import Embedder
    from ...encoders.engine import Engine
    from ...encoders.loading import LoadedEncoder
    from ..faces.mtcnn import FaceDetector


@dataclass(frozen=True)
class Networks:
    """The networks by feature, the engine that runs them, the face detector (None: no faces wanted, or crops given).

    `embedders`: what the engine runs, ours and encoders of faces; `encoders`: those that modules load, of all kinds, of
    which the engine has those of sound too, each as a `StateMaker`.
    """

    embedders: Mapping[str, Embedder | LoadedEncoder]
    engine: Engine
    detector: FaceDetector | None
    on_gpu: bool
    encoders: Mapping[str, LoadedEncoder] = field(default_factory=dict)


@dataclass(frozen=True)
class Session:
    """The settings, what the store says of each feature made with them, and the networks (None: none are needed)."""

    config: ExtractConfig
    entries: Mapping[str, Mapping[str, JsonValue]]
    weights: Mapping[str, WeightSource]
    stall_timeout_s: float
    loaded: Networks | None

    @property
    def networks(self) -> Networks:
        """The networks. Raises ValueError where the features need none."""
        if self.loaded is None:
            raise ValueError(f"no networks are loaded for {', '.join(self.config.features)}")
        return self.loaded

    def row_of(self, name: str) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
        """Shape and type of a row: as its network gives it, else as the table says."""
        if self.loaded is not None and (made := self.loaded.encoders.get(name) or self.loaded.embedders.get(name)):
            return made.row_shape, made.dtype
        return feature(name).row_shape or (), np.dtype(feature(name).dtype)


@contextmanager
def open_session(config: ExtractConfig, run: RunConfig, weights: dict[str, WeightSource]) -> Iterator[Session]:
    """Load the networks, until the end. Raises MediaError without ffmpeg: better now than once a video.

    Raises WeightsInvalid, and ValueError where an encoder cannot be loaded or a package is missing that the settings
    need. Where networks are wanted torch has one thread until then wherever it is called: there are as many callers as
    cores. The process keeps the memory that it frees, for good.
    """
    ffmpeg_version()
    use_files(config.encoders)
    if config.denoise is not None and config.audio:
        check_denoise()
    entries = recorded(config, weights)
    if not config.networks and (config.aligned or not config.visual):
        yield Session(config, entries, weights, run.stall_timeout_s, None)
        return
    import torch  # noqa: PLC0415 - torch, and what imports it, only where it is used

    from ...encoders.embed import load_embedders  # noqa: PLC0415
    from ...encoders.engine import StateMaker, choose_device, make_engine, whole_float32  # noqa: PLC0415
    from ...encoders.loading import load_encoders  # noqa: PLC0415
    from ..faces.mtcnn import FaceDetector  # noqa: PLC0415

    keep_freed_memory()
    device = choose_device(run.device)
    encoders = load_encoders(config.networks, asdict(config), weights, device, config.precision, run.batch_size)
    embedders: dict[str, Embedder | LoadedEncoder] = {
        **load_embedders(config.networks, config.vggish_output, config.precision, weights, device, run.batch_size),
        **{name: each for name, each in encoders.items() if each.kind == "face"},
    }
    entries = {
        **entries,
        **{name: {**entries[name], "encoder": each.as_attributes()} for name, each in encoders.items()},
    }
    detector = FaceDetector(device) if config.visual and not config.aligned else None
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    of_sound = {name: StateMaker(each) for name, each in encoders.items() if each.kind == "audio"}
    engine = make_engine({**embedders, **of_sound}, device, run.threads or cores())
    networks = Networks(embedders, engine, detector, device.type != "cpu", encoders)
    try:
        with whole_float32(config.precision):
            yield Session(config, entries, weights, run.stall_timeout_s, networks)
    finally:
        engine.close()
        torch.set_num_threads(before)
