"""The table of heads: each is a preset of `avfuse train`, one file of this folder and one entry here.

Loads no torch: settings and network of a head are imported when they are asked for.
Tested by tests/fusion/models/test_heads.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config import HeadSettings, TrainConfig
from ..tasks.table import TASKS

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
    "gru": Head("gru:GRUSettings", "gru:RecurrentBaseline", {"lr": 1e-3}),
    "tcn-transformer": Head(
        "tcn_transformer:TCNTransformerSettings",
        "tcn_transformer:TCNTransformer",
        {"modalities": ("iresnet50", "vggish", "mfcc")},
    ),
    "lfan": Head("lfan:LFANSettings", "lfan:LFAN"),
    "can": Head("can:CANSettings", "can:CAN"),
    "expr-transformer": Head(
        "expr_transformer:ExprTransformerSettings",
        "expr_transformer:ExprTransformer",
        {"task": "expr", "modalities": ("iresnet50",), "window_frames": 64, "hop_frames": 64},
    ),
    "attention": Head(
        "attention:AttentionSettings", "attention:Attention", {"lr": 1e-3, "weight_decay": 1e-5, "batch_size": 32}
    ),
    "mfn": Head("mfn:MFNSettings", "mfn:MFN", {"lr": 1e-3, "weight_decay": 1e-5, "batch_size": 32}),
    "mctn": Head(
        "mctn:MCTNSettings", "mctn:MCTN", {"lr": 1e-3, "weight_decay": 1e-5, "batch_size": 32, "grad_clip": 0.8}
    ),
}


class RowShapeError(ValueError):
    """Rows of a shape that a head has no use for: of which modality (0: the leading one), and what it takes."""

    def __init__(self, number: int, takes: str) -> None:
        super().__init__(f"this head takes {takes}")
        self.number, self.takes = number, takes


def head_settings(name: str) -> HeadSettings:
    """The settings of a head as its preset has them."""
    settings: HeadSettings = _loaded(HEADS[name].settings)()
    return settings


def build(config: TrainConfig, shapes: Sequence[tuple[int, ...]]) -> nn.Module:
    """The network of these settings for modalities whose rows have these `shapes` (the leading one first).

    Where a softmax or a sigmoid follows, a head that can end in tanh does not. Raises ValueError, naming the feature,
    if the head has no use for such shapes.
    """
    settings: Any = config.model
    if TASKS[config.task].activation != "none" and getattr(settings, "tanh", False):
        settings = replace(settings, tanh=False)
    try:
        network: nn.Module = _loaded(HEADS[config.preset].network)(settings, shapes, len(config.outputs))
    except RowShapeError as error:
        name, shape = config.modalities[error.number], shapes[error.number]
        raise ValueError(
            f"{name} has rows of shape {shape}; the head {config.preset} takes {error.takes}: choose other --modalities"
        ) from error
    return network


def check_shapes(config: TrainConfig, shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise ValueError if the head of these settings has no use for such shapes, before anything is read for it."""
    import torch  # noqa: PLC0415

    with torch.device("meta"):  # which has shapes and no memory
        build(config, shapes)


def widths_of(shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """D of each modality, for heads whose rows are vectors. Raises RowShapeError on rows of another shape."""
    for number, shape in enumerate(shapes):
        if len(shape) != 1:
            raise RowShapeError(number, "features [T, D]")
    return [width for (width,) in shapes]


def _loaded(place: str) -> Any:
    """The class at `module:class` of this folder."""
    module, _, name = place.partition(":")
    return getattr(import_module(f".{module}", __package__), name)
