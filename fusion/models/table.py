"""Settings to network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..config import ConcatSettings, CrossAttentionSettings, ModelSettings
from .concat import Concat
from .crossattn import CrossAttentionFusion


def build(settings: ModelSettings, widths: Sequence[int], outputs: int) -> nn.Module:
    """The network of these settings for modalities of these `widths` (the leading one first)."""
    match settings:
        case CrossAttentionSettings():
            return CrossAttentionFusion(settings, widths, outputs)
        case ConcatSettings():
            return Concat(settings, widths, outputs)
