"""Faces in frames: the MTCNN cascade over batches, on facenet-pytorch's three networks and shipped weights.

Zhang et al. 2016, "Joint face detection and alignment using multitask cascaded convolutional networks". The
arithmetic follows `MTCNN.detect` of facenet-pytorch 2.5.3, whose boxes and landmarks these equal; its crash
cases (frames smaller than a face, no candidate, degenerate boxes, very many candidates) give no faces here.

    frames → pyramid → P-Net: candidates → R-Net on 24² crops: fewer → O-Net on 48² crops: boxes, landmarks
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from facenet_pytorch.models import mtcnn
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import batched_nms

from .detections import NO_DETECTIONS, Detections, suppress_nested
from .pyramid import CELL_PX, STRIDE_PX, Area, Averages, level_of, pyramid, size_px

THRESHOLDS = (0.6, 0.7, 0.7)
_PIXELS_AT_ONCE = 1 << 21  # frames share a pass up to this many pixels: larger passes fall out of the caches
_CROPS_AT_ONCE = 512


@dataclass(frozen=True)
class _Candidates:
    """Boxes of all frames of a pass: `boxes` [K, 4], `scores` [K], `frames` [K] (which frame each lies in)."""

    boxes: Tensor
    scores: Tensor
    frames: Tensor

    def pick(self, chosen: Tensor) -> _Candidates:
        return _Candidates(self.boxes[chosen], self.scores[chosen], self.frames[chosen])

    def suppress(self, overlap: float) -> Tensor:
        # In float64 the offset that keeps frames apart costs no precision, however many frames there are.
        kept: Tensor = batched_nms(self.boxes.double(), self.scores.double(), self.frames, overlap)
        return kept


class FaceDetector:
    """MTCNN on one device; `detector(frames)` gives the faces of each frame, the largest first."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._pnet, self._rnet, self._onet = (_shipped(name).to(self.device) for name in ("PNet", "RNet", "ONet"))

    def __call__(self, frames: NDArray[np.uint8]) -> list[Detections]:
        """Faces of `frames` uint8 RGB [N, H, W, 3], one `Detections` a frame."""
        size = size_px(frames)
        return self.within(frames, Area(0, 0, *size, pyramid(min(size))))

    @torch.inference_mode()
    def within(self, frames: NDArray[np.uint8], area: Area) -> list[Detections]:
        """The same, of faces that the cascade finds without leaving the area; where it does not, they are equal."""
        pixels = (area.right - area.left) * (area.bottom - area.top)
        step = max(1, _PIXELS_AT_ONCE // max(1, pixels))
        parts = (frames[start : start + step] for start in range(0, len(frames), step))
        return [faces for part in parts for faces in self._detect(part, area)]

    def _detect(self, frames: NDArray[np.uint8], area: Area) -> list[Detections]:
        size = size_px(frames)
        seen = Averages(frames[:, area.top : area.bottom, area.left : area.right], self.device, area.left, area.top)
        levels = [level for scale in area.scales if (level := self._propose_at(seen, size, area, scale))]
        if not levels:
            return [NO_DETECTIONS] * len(frames)
        found = self._refine(seen, size, _merged(levels))
        return self._finish(seen, size, found)

    def _propose_at(
        self, seen: Averages, size: tuple[int, int], area: Area, scale: float
    ) -> tuple[_Candidates, Tensor] | None:
        """P-Net on one level of the pyramid: candidates and their regression; None where it has no room."""
        columns = level_of(size[0], area.left, area.right, scale, self.device)
        rows = level_of(size[1], area.top, area.bottom, scale, self.device)
        if columns is None or rows is None:
            return None
        moves, probabilities = self._pnet(_normalised(seen.grid(rows.bins, columns.bins)))
        face = probabilities[:, 1]
        hit = face >= THRESHOLDS[0]
        where = hit.nonzero()
        first = torch.tensor([columns.first_cell, rows.first_cell], device=self.device)
        corner = (where[:, 1:].flip(1) + first).float()
        low = ((STRIDE_PX * corner + 1) / scale).floor()
        high = ((STRIDE_PX * corner + CELL_PX) / scale).floor()
        found = _Candidates(torch.cat([low, high], dim=1), face[hit], where[:, 0])
        kept = found.suppress(0.5)
        return found.pick(kept), moves.permute(0, 2, 3, 1)[hit][kept]

    def _refine(self, seen: Averages, size: tuple[int, int], found: _Candidates) -> _Candidates:
        """R-Net: candidates that look like a face at 24², moved and squared."""
        crops, inside = _crops(seen, size, found, 24)
        found = found.pick(inside)
        moves, probabilities = _in_parts(self._rnet, crops, (4, 2))
        passed = probabilities[:, 1] > THRESHOLDS[1]
        found = _Candidates(found.boxes[passed], probabilities[passed, 1], found.frames[passed])
        kept = found.suppress(0.7)
        found, moves = found.pick(kept), moves[passed][kept]
        return _Candidates(_squared(_moved(found.boxes, moves)), found.scores, found.frames)

    def _finish(self, seen: Averages, size: tuple[int, int], found: _Candidates) -> list[Detections]:
        """O-Net: final boxes and landmarks, one `Detections` a frame."""
        crops, inside = _crops(seen, size, found, 48)
        found = found.pick(inside)
        moves, points, probabilities = _in_parts(self._onet, crops, (4, 10, 2))
        passed = probabilities[:, 1] > THRESHOLDS[2]
        boxes, frames = found.boxes[passed], found.frames[passed]
        side = boxes[:, 2:] - boxes[:, :2] + 1
        relative = points[passed].view(-1, 2, 5).transpose(1, 2)
        landmarks = relative * side[:, None] + boxes[:, None, :2] - 1
        rows = (_moved(boxes, moves[passed]), landmarks, probabilities[passed, 1], frames)
        boxes_a, landmarks_a, scores_a, frames_a = (tensor.cpu().numpy() for tensor in rows)
        return [
            suppress_nested(boxes_a[mine], landmarks_a[mine], scores_a[mine])
            for mine in (frames_a == frame for frame in range(len(seen)))
        ]


def _merged(levels: list[tuple[_Candidates, Tensor]]) -> _Candidates:
    """The candidates of all levels without doubles, moved as P-Net says and squared."""
    found = _Candidates(
        torch.cat([level.boxes for level, _ in levels]),
        torch.cat([level.scores for level, _ in levels]),
        torch.cat([level.frames for level, _ in levels]),
    )
    moves = torch.cat([moves for _, moves in levels])
    kept = found.suppress(0.7)
    found, moves = found.pick(kept), moves[kept]
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    return _Candidates(_squared(found.boxes + moves * sides.repeat(1, 2)), found.scores, found.frames)


def _shipped(name: str) -> nn.Module:
    """One of facenet-pytorch's three networks with the weights of its wheel, never unpickling code."""
    network: nn.Module = getattr(mtcnn, name)(pretrained=False)
    path = Path(mtcnn.__file__).parents[1] / "data" / f"{name.lower()}.pt"
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()


def _normalised(pixels: Tensor) -> Tensor:
    return (pixels - 127.5) * 0.0078125


def _squared(boxes: Tensor) -> Tensor:
    """The square of the longer side around each box's centre."""
    size = boxes[:, 2:] - boxes[:, :2]
    side = size.max(dim=1, keepdim=True).values
    low = boxes[:, :2] + size * 0.5 - side * 0.5
    return torch.cat([low, low + side], dim=1)


def _moved(boxes: Tensor, moves: Tensor) -> Tensor:
    size = boxes[:, 2:] - boxes[:, :2] + 1
    return boxes + moves * size.repeat(1, 2)


def _crops(seen: Averages, size: tuple[int, int], found: _Candidates, side_px: int) -> tuple[Tensor, Tensor]:
    """Area-averaged crops [K, 3, side, side] of the boxes that lie inside what is seen, and which those are."""
    corners = found.boxes.trunc().long()
    low = corners[:, :2].clamp(min=1) - 1
    high = torch.minimum(corners[:, 2:], torch.tensor(size, device=corners.device))
    corners = torch.cat([low, high], dim=1)
    inside = seen.inside(corners)
    return _normalised(seen.crops(found.frames[inside], corners[inside], side_px)), inside


def _in_parts(network: nn.Module, crops: Tensor, widths: tuple[int, ...]) -> tuple[Tensor, ...]:
    """The network's outputs [K, width] for any number of crops, a bounded number at a time."""
    if not len(crops):
        return tuple(crops.new_zeros(0, width) for width in widths)
    parts = [network(part) for part in torch.split(crops, _CROPS_AT_ONCE)]
    return tuple(torch.cat(outputs) for outputs in zip(*parts, strict=True))
