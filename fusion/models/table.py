"""The table of heads: each is a preset of `avfuse train`, one file of this folder and one entry here.

Loads no torch: settings and network of a head are imported when they are asked for.
Tested by tests/fusion/models/test_heads.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config import HeadSettings, TrainConfig

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Head:
    """A preset: classes of this folder as `module:class`, and the settings of the run that differ from `TrainConfig`'s.

    `settings` is a `HeadSettings`; `network` is made as network(settings, shapes, outputs), of which `shapes` are
    those of a row of each modality, the leading one first, and called as network(features, valid, mask): `features`
    float32 [B, T, *shape] and `valid` bool [B, T] of each modality, `mask` bool [B, T] (no padding) → [B, T, outputs],
    or an `Output`.
    """

    settings: str
    network: str
    training: Mapping[str, Any] = field(default_factory=dict)


class Output(NamedTuple):
    """What a network returns that adds to the loss: its prediction [B, T, outputs], and a scalar."""

    prediction: Tensor
    extra_loss: Tensor


HEADS: dict[str, Head] = {
    "crossattn": Head("crossattn:CrossAttentionSettings", "crossattn:CrossAttentionFusion"),
    "su-zhang": Head("crossattn:CrossAttentionSettings", "crossattn:CrossAttentionFusion", {"lr": 1e-5}),
    "avfuse": Head("avfuse:AvfuseSettings", "avfuse:Avfuse", {"modality_dropout": 0.1}),
    "concat": Head("concat:ConcatSettings", "concat:Concat"),
}


def head_settings(name: str) -> HeadSettings:
    """The settings of a head as its preset has them."""
    settings: HeadSettings = _loaded(HEADS[name].settings)()
    return settings


def build(config: TrainConfig, shapes: Sequence[tuple[int, ...]]) -> nn.Module:
    """The network of these settings for modalities whose rows have these `shapes` (the leading one first).

    Raises ValueError if the head has no use for such shapes.
    """
    network: nn.Module = _loaded(HEADS[config.preset].network)(config.model, shapes, len(config.outputs))
    return network


def widths_of(shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """D of each modality, for heads whose rows are vectors. Raises ValueError on rows of another shape."""
    for shape in shapes:
        if len(shape) != 1:
            raise ValueError(f"this head needs features [T, D], and has one with rows of shape {shape}")
    return [width for (width,) in shapes]


def _loaded(place: str) -> Any:
    """The class at `module:class` of this folder."""
    module, _, name = place.partition(":")
    return getattr(import_module(f".{module}", __package__), name)
