"""IR-50 as face.evoLVe names it (112 px, 349 tensors), and Su Zhang's variant of it (40 px, 351 tensors).

    112 px: 112 ─ 56 ─ 28 ─ 14 ─ 7     every stage halves the side, Linear(512 · 7 · 7 → 512)
     40 px:  40 ─ 40 ─ 20 ─ 10 ─ 5     the first stage keeps it,    Linear(512 · 5 · 5 → 512), row norm 1

Source of the shapes: docs/sources.md (IR-50). Tested by tests/parity/test_iresnet.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))
EVOLVE_PX = 112
SUZHANG_PX = 40
NUM_EXPRESSIONS = 8


class Unit(nn.Module):
    """BN, conv, PReLU, strided conv, BN, plus the shortcut; no BN between the first conv and its PReLU."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        # A pool of one pixel only picks every stride-th one, and has no weights.
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if in_channels != channels:
            conv = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(conv, nn.BatchNorm2d(channels))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, channels, H/stride, W/stride]."""
        return torch.add(self.res_layer(x), self.shortcut_layer(x))


class IR50(nn.Module):
    """face.evoLVe's IR-50; with `first_stride=1` and 40 px the body that Su Zhang fine-tuned."""

    def __init__(self, input_px: int = EVOLVE_PX, first_stride: int = 2, dim: int = 512) -> None:
        super().__init__()
        final_px = input_px // (first_stride * 2 ** (len(STAGES) - 1))
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(512 * final_px**2, dim),
            nn.BatchNorm1d(dim),
        )
        units, in_channels = [], STAGES[0][0]
        for stage, (channels, num_units) in enumerate(STAGES):
            for index in range(num_units):
                stride = 1 if index else (2 if stage else first_stride)
                units.append(Unit(in_channels, channels, stride))
                in_channels = channels
        self.body = nn.Sequential(*units)

    def trunk(self, faces: Tensor) -> Tensor:
        """RGB faces [N, 3, px, px] in [-1, 1] → maps [N, 512, 7, 7], at 40 px [N, 512, 5, 5]."""
        maps: Tensor = self.body(self.input_layer(faces))
        return maps

    def forward(self, faces: Tensor) -> Tensor:
        """RGB faces [N, 3, px, px] in [-1, 1] → embeddings [N, 512], not normalised."""
        embedding: Tensor = self.output_layer(self.trunk(faces))
        return embedding


class SuZhangIR50(nn.Module):
    """The FER+ fine-tuned backbone of ABAW3; `logits` holds its eight expressions and takes no part here."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = IR50(SUZHANG_PX, first_stride=1)
        self.logits = nn.Linear(512, NUM_EXPRESSIONS)

    def trunk(self, faces: Tensor) -> Tensor:
        """RGB faces [N, 3, 40, 40] in [-1, 1] → maps [N, 512, 5, 5]."""
        return self.backbone.trunk(faces)

    def forward(self, faces: Tensor) -> Tensor:
        """RGB faces [N, 3, 40, 40] in [-1, 1] → embeddings [N, 512] of row norm 1."""
        return row_norm_1(self.backbone(faces))


def row_norm_1(rows: Tensor) -> Tensor:
    """Rows [N, D] of norm 1."""
    return F.normalize(rows)
