"""IResNet-50 as insightface's arcface_torch names it: 475 tensors, 43,590,848 parameters.

    faces [N, 3, 112, 112] ── stem 64 ── 4 stages, each halving the side: 56, 28, 14, 7 ── fc ── [N, 512]

Source of the shape: docs/sources.md (IResNet-50). Tested by tests/parity/test_iresnet.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))
INPUT_PX = 112
_FINAL_PX = INPUT_PX // 2 ** len(STAGES)


class Block(nn.Module):
    """BN, conv, BN, PReLU, strided conv, BN, plus the shortcut; nothing follows the sum."""

    FOLDS = (("conv1", "bn2"), ("conv2", "bn3"))

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.prelu = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        # Only the first block of a stage has one, also in the first stage, where the channels stay 64.
        self.downsample: nn.Module | None = None
        if stride > 1:
            conv = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, channels, H/stride, W/stride]."""
        y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        y = self.bn3(self.conv2(y))
        return torch.add(y, x if self.downsample is None else self.downsample(x))


class IResNet50(nn.Module):
    """The face embedding network; its output is not L2-normalised."""

    FOLDS = (("conv1", "bn1"), ("fc", "features"))

    def __init__(self, dim: int = 512) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        in_channels = 64
        for number, (channels, num_blocks) in enumerate(STAGES, start=1):
            first = Block(in_channels, channels, stride=2)
            others = (Block(channels, channels, stride=1) for _ in range(num_blocks - 1))
            setattr(self, f"layer{number}", nn.Sequential(first, *others))
            in_channels = channels
        self.bn2 = nn.BatchNorm2d(in_channels)
        self.fc = nn.Linear(in_channels * _FINAL_PX**2, dim)
        self.features = nn.BatchNorm1d(dim)

    def trunk(self, faces: Tensor) -> Tensor:
        """RGB faces [N, 3, 112, 112] in [-1, 1] → maps [N, 512, 7, 7], what the last stage gives."""
        x: Tensor = self.prelu(self.bn1(self.conv1(faces)))
        for number in range(1, len(STAGES) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return x

    def forward(self, faces: Tensor) -> Tensor:
        """RGB faces [N, 3, 112, 112] in [-1, 1] → embeddings [N, 512]."""
        embedding: Tensor = self.features(self.fc(self.bn2(self.trunk(faces)).flatten(1)))
        return embedding
