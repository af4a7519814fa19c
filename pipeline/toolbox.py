"""What every video of a run shares: settings, loaded networks, and what they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .config import ExtractConfig, RunConfig
from .media import ffmpeg_version
from .provenance import identity
from .weights import WeightSource

if TYPE_CHECKING:
    from .networks import Networks


@dataclass(frozen=True)
class Toolbox:
    """The settings, the weights and their identity, and the networks (None: the features need none)."""

    config: ExtractConfig
    fingerprint: str
    weights: Mapping[str, WeightSource]
    stall_timeout_s: float
    loaded: Networks | None

    @property
    def networks(self) -> Networks:
        """The networks. Raises ValueError where the features need none."""
        if self.loaded is None:
            raise ValueError(f"no networks are loaded for {', '.join(self.config.features)}")
        return self.loaded


@contextmanager
def open_toolbox(config: ExtractConfig, run: RunConfig, weights: dict[str, WeightSource]) -> Iterator[Toolbox]:
    """Load the networks, until the end. Raises MediaError without ffmpeg: better now than once a video."""
    ffmpeg_version()
    fingerprint = identity(config, weights)
    if not config.networks:
        yield Toolbox(config, fingerprint, weights, run.stall_timeout_s, None)
        return
    from .networks import open_networks  # noqa: PLC0415 - torch only where it is used

    with open_networks(config, run, weights) as networks:
        yield Toolbox(config, fingerprint, weights, run.stall_timeout_s, networks)
