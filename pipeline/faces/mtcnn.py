"""Faces in frames: the MTCNN cascade over batches, on facenet-pytorch's three networks and shipped weights.

Zhang et al. 2016, "Joint face detection and alignment using multitask cascaded convolutional networks". The
arithmetic follows `MTCNN.detect` of facenet-pytorch 2.5.3, whose boxes and landmarks these equal; its crash
cases (frames smaller than a face, no candidate, degenerate boxes, very many candidates) give no faces here.

    frames → pyramid → P-Net: candidates → R-Net on 24² crops: fewer → O-Net on 48² crops: boxes, landmarks

Tested by tests/parity/test_mtcnn.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from facenet_pytorch.models import mtcnn
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import batched_nms

from .detections import NO_DETECTIONS, Detections, suppress_nested
from .pyramid import CELL_PX, STRIDE_PX, Area, IntegralImages, level_of, pyramid

THRESHOLDS = (0.6, 0.7, 0.7)
_GREY, _PER_LEVEL = 127.5, 0.0078125  # what the networks take is (pixel - grey) / 128
_PIXELS_AT_ONCE = 1 << 21  # frames share a pass up to this many pixels: larger passes fall out of the caches
_CROPS_AT_ONCE = 512


@dataclass(frozen=True)
class _Candidates:
    """Boxes of all frames of a pass: `boxes` [K, 4], `scores` [K], `frames` [K] (which frame each lies in).

    `moves` [K, 4]: by how much the last network would move the four edges, in sides of the box.
    """

    boxes: Tensor
    scores: Tensor
    frames: Tensor
    moves: Tensor

    def pick(self, chosen: Tensor) -> _Candidates:
        return _Candidates(self.boxes[chosen], self.scores[chosen], self.frames[chosen], self.moves[chosen])

    def suppress(self, overlap: float) -> _Candidates:
        """Without those that overlap a better one of the same frame by more."""
        # In float64 the offset that keeps frames apart costs no precision, however many frames there are.
        return self.pick(batched_nms(self.boxes.double(), self.scores.double(), self.frames, overlap))


class FaceDetector:
    """MTCNN on one device; `detector(frames)` gives the faces of each frame, the largest first."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        networks = []
        for name in ("PNet", "RNet", "ONet"):
            network: nn.Module = getattr(mtcnn, name)(pretrained=False)
            path = Path(mtcnn.__file__).parents[1] / "data" / f"{name.lower()}.pt"
            network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
            networks.append(network.eval().to(self.device))
        self._pnet, self._rnet, self._onet = networks

    @torch.inference_mode()
    def __call__(self, frames: NDArray[np.uint8], area: Area | None = None) -> list[Detections]:
        """Faces of `frames` uint8 RGB [N, H, W, 3], one `Detections` a frame.

        `area`: look only there; a face that the cascade finds without leaving the area is the same as in the whole.
        """
        height, width = frames.shape[1:3]
        if area is None:
            area = Area(0, 0, width, height, pyramid(min(width, height)))
        pixels = (area.right - area.left) * (area.bottom - area.top)
        step = max(1, _PIXELS_AT_ONCE // max(1, pixels))
        parts = (frames[start : start + step] for start in range(0, len(frames), step))
        return [faces for part in parts for faces in self._cascade(part, area)]

    def _cascade(self, frames: NDArray[np.uint8], area: Area) -> list[Detections]:
        """One pass: the three networks, one after the other."""
        size = frames.shape[2], frames.shape[1]
        seen = IntegralImages(
            frames[:, area.top : area.bottom, area.left : area.right], self.device, area.left, area.top
        )
        found = self._propose(seen, size, area)
        if found is None:
            return [NO_DETECTIONS] * len(frames)

        # R-Net: candidates that look like a face at 24², moved and squared.
        found, (moves, probabilities) = _look(self._rnet, seen, size, found, 24, (4, 2))
        found = replace(found, scores=probabilities[:, 1], moves=moves)
        found = found.pick(found.scores > THRESHOLDS[1]).suppress(0.7)
        sides = found.boxes[:, 2:] - found.boxes[:, :2] + 1
        found = replace(found, boxes=_squared(found.boxes + found.moves * sides.repeat(1, 2)))

        # O-Net at 48²: final boxes and landmarks.
        found, (moves, points, probabilities) = _look(self._onet, seen, size, found, 48, (4, 10, 2))
        found = replace(found, scores=probabilities[:, 1], moves=moves)
        passed = found.scores > THRESHOLDS[2]
        found = found.pick(passed)
        sides = found.boxes[:, 2:] - found.boxes[:, :2] + 1
        relative = points[passed].view(-1, 2, 5).transpose(1, 2)
        landmarks = relative * sides[:, None] + found.boxes[:, None, :2] - 1
        rows = (found.boxes + found.moves * sides.repeat(1, 2), landmarks, found.scores, found.frames)
        boxes_a, landmarks_a, scores_a, frames_a = (tensor.cpu().numpy() for tensor in rows)
        return [
            suppress_nested(boxes_a[mine], landmarks_a[mine], scores_a[mine])
            for mine in (frames_a == frame for frame in range(len(frames)))
        ]

    def _propose(self, seen: IntegralImages, size: tuple[int, int], area: Area) -> _Candidates | None:
        """P-Net on the levels of the pyramid: candidates, each once, moved and squared; None where no level has room.

        `size`: width and height of the frames.
        """
        levels = []
        for scale in area.scales:
            columns = level_of(size[0], area.left, area.right, scale, self.device)
            rows = level_of(size[1], area.top, area.bottom, scale, self.device)
            if columns is None or rows is None:
                continue
            moves, probabilities = self._pnet((seen.grid(rows.bins, columns.bins) - _GREY) * _PER_LEVEL)
            face = probabilities[:, 1]
            hit = face >= THRESHOLDS[0]
            cells = hit.nonzero()
            first = torch.tensor([columns.first_cell, rows.first_cell], device=self.device)
            corner = (cells[:, 1:].flip(1) + first).float()
            low = ((STRIDE_PX * corner + 1) / scale).floor()
            high = ((STRIDE_PX * corner + CELL_PX) / scale).floor()
            moves = moves.permute(0, 2, 3, 1)[hit]
            levels.append(_Candidates(torch.cat([low, high], dim=1), face[hit], cells[:, 0], moves).suppress(0.5))
        if not levels:
            return None
        columns_of_all = ([getattr(level, name) for level in levels] for name in ("boxes", "scores", "frames", "moves"))
        found = _Candidates(*map(torch.cat, columns_of_all)).suppress(0.7)
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        return replace(found, boxes=_squared(found.boxes + found.moves * sides.repeat(1, 2)))


def _squared(boxes: Tensor) -> Tensor:
    """The square of the longer side around each box's centre."""
    size = boxes[:, 2:] - boxes[:, :2]
    side = size.max(dim=1, keepdim=True).values
    low = boxes[:, :2] + size * 0.5 - side * 0.5
    return torch.cat([low, low + side], dim=1)


def _look(
    network: nn.Module,
    seen: IntegralImages,
    size: tuple[int, int],
    found: _Candidates,
    side_px: int,
    widths: tuple[int, ...],
) -> tuple[_Candidates, tuple[Tensor, ...]]:
    """The candidates that lie inside what is seen, and the network's outputs [K, width] for their crops.

    Any number of crops [3, side, side], a bounded number at a time.
    """
    corners = found.boxes.trunc().long()
    low = corners[:, :2].clamp(min=1) - 1
    high = torch.minimum(corners[:, 2:], torch.tensor(size, device=corners.device))
    crops, contained = seen.crops(found.frames, torch.cat([low, high], dim=1), side_px)
    if not len(crops):
        return found.pick(contained), tuple(crops.new_zeros(0, width) for width in widths)
    parts = [network((part - _GREY) * _PER_LEVEL) for part in torch.split(crops, _CROPS_AT_ONCE)]
    return found.pick(contained), tuple(torch.cat(outputs) for outputs in zip(*parts, strict=True))
