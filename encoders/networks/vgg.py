"""VGGish's network under torchvggish's names: 18 tensors, 72,141,184 parameters.

    log-mel [N, 1, 96, 64] ── 6 convolutions, 4 halvings ── [N, 512, 6, 4] ── 3 linear layers ── [N, 128]

Source of the shape: docs/sources.md (VGGish). Tested by tests/parity/test_vgg.py.
"""

from __future__ import annotations

from torch import Tensor, nn

PATCH_FRAMES = 96
PATCH_BANDS = 64
DIM = 128
_HIDDEN = 4096
_CHANNELS = ((64,), (128,), (256, 256), (512, 512))
_FLAT = _CHANNELS[-1][-1] * (PATCH_FRAMES // 16) * (PATCH_BANDS // 16)


def _convolutions() -> nn.Sequential:
    layers: list[nn.Module] = []
    in_channels = 1
    for stage in _CHANNELS:
        for channels in stage:
            layers += [nn.Conv2d(in_channels, channels, 3, padding=1), nn.ReLU()]
            in_channels = channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


class VGG(nn.Module):
    """The audio embedding network, up to the last linear layer: no final ReLU, no PCA."""

    def __init__(self) -> None:
        super().__init__()
        self.features = _convolutions()
        self.embeddings = nn.Sequential(
            nn.Linear(_FLAT, _HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, DIM),
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Log-mel patches [N, 1, 96, 64] → embeddings [N, 128]."""
        x = self.features(patches)
        # The TensorFlow original flattens time, band, channel; the linear weights are in that order.
        embedding: Tensor = self.embeddings(x.permute(0, 2, 3, 1).flatten(1))
        return embedding
