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
import torch.nn.functional as F
from facenet_pytorch.models import mtcnn
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import batched_nms

MIN_FACE_PX = 20
PYRAMID_FACTOR = 0.709
THRESHOLDS = (0.6, 0.7, 0.7)
_CELL_PX = 12  # P-Net's field of view
_STRIDE_PX = 2
_PIXELS_AT_ONCE = 1 << 21  # frames share a pass up to this many pixels: larger passes fall out of the caches
_CROPS_AT_ONCE = 512


@dataclass(frozen=True)
class Faces:
    """The faces of one frame: `boxes` float32 [F, 4] x1, y1, x2, y2 px, `landmarks` [F, 5, 2] px, `scores` [F]."""

    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)


NO_FACES = Faces(np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, np.float32))


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

    @torch.inference_mode()
    def __call__(self, frames: NDArray[np.uint8]) -> list[Faces]:
        """Faces of `frames` uint8 RGB [N, H, W, 3], one `Faces` a frame."""
        step = max(1, _PIXELS_AT_ONCE // max(1, frames.shape[1] * frames.shape[2]))
        parts = (frames[start : start + step] for start in range(0, len(frames), step))
        return [faces for part in parts for faces in self._detect(part)]

    def _detect(self, frames: NDArray[np.uint8]) -> list[Faces]:
        pixels = torch.tensor(frames, device=self.device).permute(0, 3, 1, 2).float()
        found = self._propose(pixels)
        if found is not None:
            found = self._refine(pixels, found)
        if found is None or not len(found.scores):
            return [NO_FACES] * len(frames)
        return self._finish(pixels, found)

    def _propose(self, pixels: Tensor) -> _Candidates | None:
        """P-Net over the pyramid: candidates and their regression, squared."""
        scales = _scales(min(pixels.shape[2:]))
        if not scales:
            return None
        levels = [self._propose_at(pixels, scale) for scale in scales]
        found = _Candidates(
            torch.cat([level.boxes for level, _ in levels]),
            torch.cat([level.scores for level, _ in levels]),
            torch.cat([level.frames for level, _ in levels]),
        )
        moves = torch.cat([moves for _, moves in levels])
        kept = found.suppress(0.7)
        found, moves = found.pick(kept), moves[kept]
        size = found.boxes[:, 2:] - found.boxes[:, :2]
        moved = found.boxes + moves * size.repeat(1, 2)
        return _Candidates(_squared(moved), found.scores, found.frames)

    def _propose_at(self, pixels: Tensor, scale: float) -> tuple[_Candidates, Tensor]:
        height, width = (int(side * scale + 1) for side in pixels.shape[2:])
        level = F.interpolate(pixels, size=(height, width), mode="area")
        moves, probabilities = self._pnet(_normalised(level))
        face = probabilities[:, 1]
        hit = face >= THRESHOLDS[0]
        where = hit.nonzero()
        corner = where[:, 1:].to(pixels.dtype).flip(1)
        low = ((_STRIDE_PX * corner + 1) / scale).floor()
        high = ((_STRIDE_PX * corner + _CELL_PX) / scale).floor()
        found = _Candidates(torch.cat([low, high], dim=1), face[hit], where[:, 0])
        kept = found.suppress(0.5)
        return found.pick(kept), moves.permute(0, 2, 3, 1)[hit][kept]

    def _refine(self, pixels: Tensor, found: _Candidates) -> _Candidates:
        """R-Net: candidates that look like a face at 24², moved and squared."""
        crops, inside = _crops(pixels, found, 24)
        found = found.pick(inside)
        moves, probabilities = _in_parts(self._rnet, crops, (4, 2))
        passed = probabilities[:, 1] > THRESHOLDS[1]
        found = _Candidates(found.boxes[passed], probabilities[passed, 1], found.frames[passed])
        kept = found.suppress(0.7)
        found, moves = found.pick(kept), moves[passed][kept]
        return _Candidates(_squared(_moved(found.boxes, moves)), found.scores, found.frames)

    def _finish(self, pixels: Tensor, found: _Candidates) -> list[Faces]:
        """O-Net: final boxes and landmarks, one `Faces` a frame."""
        crops, inside = _crops(pixels, found, 48)
        found = found.pick(inside)
        moves, points, probabilities = _in_parts(self._onet, crops, (4, 10, 2))
        passed = probabilities[:, 1] > THRESHOLDS[2]
        boxes, frames = found.boxes[passed], found.frames[passed]
        size = boxes[:, 2:] - boxes[:, :2] + 1
        relative = points[passed].view(-1, 2, 5).transpose(1, 2)
        landmarks = relative * size[:, None] + boxes[:, None, :2] - 1
        rows = (_moved(boxes, moves[passed]), landmarks, probabilities[passed, 1], frames)
        boxes_a, landmarks_a, scores_a, frames_a = (tensor.cpu().numpy() for tensor in rows)
        return [
            _without_nested(boxes_a[mine], landmarks_a[mine], scores_a[mine])
            for mine in (frames_a == frame for frame in range(len(pixels)))
        ]


def _shipped(name: str) -> nn.Module:
    """One of facenet-pytorch's three networks with the weights of its wheel, never unpickling code."""
    network: nn.Module = getattr(mtcnn, name)(pretrained=False)
    path = Path(mtcnn.__file__).parents[1] / "data" / f"{name.lower()}.pt"
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()


def _scales(short_side_px: int) -> list[float]:
    """Scales of the pyramid, from the smallest face wanted to the whole frame; none for a tiny frame."""
    scale = _CELL_PX / MIN_FACE_PX
    side = short_side_px * scale
    scales = []
    while side >= _CELL_PX:
        scales.append(scale)
        scale *= PYRAMID_FACTOR
        side *= PYRAMID_FACTOR
    return scales


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


def _crops(pixels: Tensor, found: _Candidates, side_px: int) -> tuple[Tensor, Tensor]:
    """Area-averaged crops [K, 3, side, side] of the boxes that lie inside their frame, and which those are."""
    height, width = pixels.shape[2:]
    corners = found.boxes.trunc().long()
    low = corners[:, :2].clamp(min=1) - 1
    high = torch.minimum(corners[:, 2:], torch.tensor([width, height], device=corners.device))
    inside = (high > low).all(dim=1)
    rows = torch.cat([found.frames[:, None], low, high], dim=1)[inside].tolist()
    crops = [
        F.adaptive_avg_pool2d(pixels[frame, :, top:bottom, left:right], side_px)
        for frame, left, top, right, bottom in rows
    ]
    stacked = torch.stack(crops) if crops else pixels.new_zeros(0, 3, side_px, side_px)
    return _normalised(stacked), inside


def _in_parts(network: nn.Module, crops: Tensor, widths: tuple[int, ...]) -> tuple[Tensor, ...]:
    """The network's outputs [K, width] for any number of crops, a bounded number at a time."""
    if not len(crops):
        return tuple(crops.new_zeros(0, width) for width in widths)
    parts = [network(part) for part in torch.split(crops, _CROPS_AT_ONCE)]
    return tuple(torch.cat(outputs) for outputs in zip(*parts, strict=True))


def _without_nested(boxes: NDArray[np.float32], landmarks: NDArray[np.float32], scores: NDArray[np.float32]) -> Faces:
    """The frame's faces without those that lie inside a better one (overlap over the smaller area > 0.7)."""
    kept: list[int] = []
    areas = np.prod(boxes[:, 2:] - boxes[:, :2] + 1, axis=1)
    for face in np.argsort(scores)[::-1]:
        low = np.maximum(boxes[face, :2], boxes[kept, :2])
        high = np.minimum(boxes[face, 2:], boxes[kept, 2:])
        shared = np.prod(np.maximum(0.0, high - low + 1), axis=1)
        if (shared <= 0.7 * np.minimum(areas[face], areas[kept])).all():
            kept.append(int(face))
    sides = boxes[kept, 2:] - boxes[kept, :2]
    order = np.array(kept, np.int64)[np.argsort(sides[:, 0] * sides[:, 1])[::-1]]
    return Faces(boxes[order], landmarks[order], scores[order])
