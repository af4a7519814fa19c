"""The faces that were found in one frame, and how much boxes overlap. NumPy only: tracking needs no networks.

Source: docs/sources.md (MTCNN).
Tested by tests/pipeline/faces/test_tracking.py, test_search.py and tests/parity/test_mtcnn.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Detections:
    """The faces of one frame: `boxes` float32 [F, 4] x1, y1, x2, y2 px, `landmarks` [F, 5, 2] px, `scores` [F]."""

    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)


NO_DETECTIONS = Detections(np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, np.float32))


def merge(parts: Sequence[Detections]) -> Detections:
    """The faces of one frame that were found in several windows of it, each once."""
    if len(parts) == 1:
        return parts[0]
    rows = ([getattr(part, name) for part in parts] for name in ("boxes", "landmarks", "scores"))
    return suppress_nested(*(np.concatenate(each) for each in rows))


def suppress_nested(
    boxes: NDArray[np.float32], landmarks: NDArray[np.float32], scores: NDArray[np.float32]
) -> Detections:
    """The frame's faces without those that lie inside a better one (overlap over the smaller area > 0.7).

    `boxes` [F, 4] and `landmarks` [F, 5, 2] in px, `scores` [F]; the largest box comes first. As the last step of
    facenet-pytorch's `detect_face` (`Min`, 0.7).
    """
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
    return Detections(boxes[order], landmarks[order], scores[order])


def overlaps(box: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intersection over union of `box` [4] with each of `boxes` [F, 4]."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.maximum(high - low, 0.0), axis=1, dtype=np.float64)
    area = np.prod(box[2:] - box[:2], dtype=np.float64)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1, dtype=np.float64)
    return np.asarray(shared / np.maximum(area + areas - shared, 1e-9))
