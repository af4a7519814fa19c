"""S2: LA-SE, a TCN a modality, a Transformer encoder over all of them.

    face   [T, 512, 7, 7] ─ LA-SE ─ mean over the map ─ 512 ─ TCN ─ 128 ─┐
           [T, 512] ─────── SE, its half of the channels ─ 512 ─ TCN ────┤
    VGGish [T, 128] ──────────────────────────────────────── TCN ─  32 ──┼─ concat 192 ─ encoder × 4 ─ Linear
    MFCC   [T, 39] ───────────────────────────────────────── TCN ─  32 ──┘               ─ batch norm ─ Linear ─ tanh

`la_se`, `tcn` and `transformer` switch each part off: the eight rows of S2's Table 2. Without TCNs a linear layer
brings each modality to the same width. The encoder sees the whole window: not causal.

Source: S2 (arXiv 2403.12425); docs/sources.md (LA-SE, S2's encoder).
Tested by tests/fusion/models/test_transformers.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from ..config import HeadSettings, check_settings
from ..layers.modality import MaskedBatchNorm
from ..layers.tcn import TCN
from ..layers.transformer import Encoder
from .table import RowShapeError


@dataclass(frozen=True)
class TCNTransformerSettings(HeadSettings):
    """S2. Source: docs/sources.md (LA-SE, S2's encoder)."""

    la_se: Annotated[bool, "S2"] = True
    tcn: Annotated[bool, "S2"] = True
    transformer: Annotated[bool, "S2"] = True
    reduction: Annotated[int, "TransFER, SENet"] = 16
    lead_channels: Annotated[tuple[int, ...], "ABAW2's code"] = (256, 256, 128, 128)
    other_channels: Annotated[tuple[int, ...], "ABAW2's code"] = (32, 32, 32, 32)
    kernel: Annotated[int, "ABAW2's code"] = 5
    causal: Annotated[bool, "ABAW2's code"] = True
    tcn_dropout: Annotated[float, "ABAW2's code"] = 0.1
    layers: Annotated[int, "S2"] = 4
    heads: Annotated[int, "ours; not given by S2"] = 4
    feed_forward: Annotated[int, "ours; not given by S2"] = 768
    dropout: Annotated[float, "S2"] = 0.4
    hidden: Annotated[int, "ours; not given by S2"] = 128
    tanh: Annotated[bool, "S2"] = True

    def __post_init__(self) -> None:
        positive = (
            "reduction",
            "lead_channels",
            "other_channels",
            "kernel",
            "layers",
            "heads",
            "feed_forward",
            "hidden",
        )
        check_settings(self, positive, below_one=["tcn_dropout", "dropout"])


class LASE(nn.Module):
    """Weights for the places of a map (LANet), then for its channels (SENet), and its mean over the places.

    Of a vector, which has no places, the channels' weights alone.
    """

    def __init__(self, shape: tuple[int, ...], reduction: int) -> None:
        super().__init__()
        inner = max(1, shape[0] // reduction)
        self.places: nn.Module | None = None
        if len(shape) == 3:
            squeeze, to_one = nn.Conv2d(shape[0], inner, 1), nn.Conv2d(inner, 1, 1)
            self.places = nn.Sequential(squeeze, nn.ReLU(), to_one, nn.Sigmoid())
        squeeze_rows, back = nn.Linear(shape[0], inner), nn.Linear(inner, shape[0])
        self.channels = nn.Sequential(squeeze_rows, nn.ReLU(), back, nn.Sigmoid())

    def forward(self, rows: Tensor) -> Tensor:
        """[B, T, C, H, W] or [B, T, C] → [B, T, C]."""
        if self.places is not None:
            maps = rows.flatten(0, 1)
            weights = self.places(maps)[:, 0]
            # The channels' weights are the same at every place: the mean may be taken before them.
            mean = torch.einsum("nchw,nhw->nc", maps, weights) / weights[0].numel()
            rows = mean.unflatten(0, rows.shape[:2])
        weighed: Tensor = rows * self.channels(rows)
        return weighed


class TCNTransformer(nn.Module):
    """Rows or maps of every modality, the leading one first, to `outputs` numbers per frame.

    Raises RowShapeError for rows of another kind, ValueError where the encoder's width is not a multiple of its heads.
    """

    def __init__(self, settings: TCNTransformerSettings, shapes: Sequence[tuple[int, ...]], outputs: int) -> None:
        super().__init__()
        for number, shape in enumerate(shapes):
            if len(shape) not in (1, 3):
                raise RowShapeError(number, "features [T, D] and maps [T, C, H, W]")
        self.settings = settings
        self.la_se = nn.ModuleDict()  # of the leading modality, and of those that are maps
        if settings.la_se:
            weighed = (number for number, shape in enumerate(shapes) if not number or len(shape) == 3)
            self.la_se.update({str(number): LASE(shapes[number], settings.reduction) for number in weighed})
        channels = [settings.lead_channels, *[settings.other_channels] * (len(shapes) - 1)]
        self.temporal = nn.ModuleList(
            TCN(shape[0], levels, settings.kernel, settings.tcn_dropout, settings.causal)
            if settings.tcn
            else nn.Linear(shape[0], levels[-1])
            for shape, levels in zip(shapes, channels, strict=True)
        )
        width = sum(levels[-1] for levels in channels)
        self.encoder: nn.Module | None = None
        if settings.transformer:
            heads, feed = settings.heads, settings.feed_forward
            if width % heads:
                raise ValueError(f"the modalities' channels, {width} in all, are not a multiple of heads {heads}")
            self.encoder = Encoder(
                settings.layers, width, heads, width // heads, feed, settings.dropout, norm_first=False, positions=True
            )
        self.fc1 = nn.Linear(width, settings.hidden, bias=False)  # batch norm has one
        self.bn = MaskedBatchNorm(settings.hidden)
        self.fc2 = nn.Linear(settings.hidden, outputs)
        self.tanh = nn.Tanh() if settings.tanh else nn.Identity()

    def forward(self, features: Sequence[Tensor], valid: Sequence[Tensor], mask: Tensor) -> Tensor:
        """`features` [B, T, *shape_m], `valid` bool [B, T] of each, `mask` bool [B, T] (no padding) → [B, T, outputs].

        Rows that are not valid are zeros after LA-SE, whatever they are; frames without a real row are not attended to.
        """
        streams = []
        for number, (given, there, temporal) in enumerate(zip(features, valid, self.temporal, strict=True)):
            if str(number) in self.la_se:
                seen = self.la_se[str(number)](given)
            else:
                seen = given.mean((-2, -1)) if given.dim() == 5 else given
            known = seen.masked_fill(~(there & mask).unsqueeze(-1), 0.0)
            if self.settings.tcn:
                known = temporal(known.transpose(1, 2), mask.unsqueeze(1).to(known.dtype)).transpose(1, 2)
            else:
                known = temporal(known)
            streams.append(known)
        together = torch.cat(streams, -1)
        real = torch.stack(list(valid)).any(0) & mask
        if self.encoder is not None:
            together = self.encoder(together, real)
        predicted: Tensor = self.tanh(self.fc2(self.bn(self.fc1(together), real)))
        return predicted
