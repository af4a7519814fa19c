"""Where to look for faces in which frame: all of it now and then, else only where the followed ones were.

    whole  ·  ·  ·  ·  ·  ·  ·  whole  ·  ·  ·  whole  ·  ·  ·  ·  ·  ·
             └ window about each followed face, of scales about its own ┘       a cut, or somebody is not found

The same cascade looks through a window, on the same grid of the same pyramid, so that it finds the same box there
as in the whole frame. (R-Net and O-Net alone, begun at the last box, do not: MTCNN's box depends on which of P-Net's
candidates wins.) Tested by tests/pipeline/faces/test_search.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..media.types import FrameBatch
from .detections import Detections, merge
from .mtcnn import FaceDetector
from .pyramid import Area, pyramid, size_px
from .tracking import Followers, overlaps

WHOLE_EVERY_S = 1.0
_FRAMES_AT_ONCE = 8  # share a window
_HALF_WINDOW = 1.3  # in sides of the face
_DRIFT = 0.3  # in sides: a face that is further from the window's middle needs a window of its own
_SMALLEST, _LARGEST = 1 / 3, 2.0  # candidates whose box lies in these bounds, in sides, can become the face's box
_SAME_FACE = 0.3  # overlap from frame to frame


class FaceSearch:
    """Finds the faces of a video's frames and whom to follow among them; batches come in order.

    `every`: search the whole frame at least every so many frames; 1 is the detector's own result in every frame.
    """

    def __init__(self, detector: FaceDetector, followers: Followers, every: int) -> None:
        self._detector, self._followers, self._every = detector, followers, every
        self._frames_since, self._whole_s = every, -np.inf
        self._blind = 0  # frames in a row without anybody to follow

    def __call__(self, batch: FrameBatch, cuts: Sequence[bool]) -> Iterator[tuple[Detections, list[int | None]]]:
        """The faces of each frame, and the index of each followed one."""
        row, lost = 0, False
        while row < len(cuts):
            if whole := self._whole_from(batch, cuts, row, lost):
                found = self._detector(batch.pixels[row : row + whole])
                lost = False
            else:
                found = self._near(batch, cuts, row)
                lost = not found
            for faces in found:
                yield faces, self._take(faces, float(batch.time_s[row]), cuts[row], whole=whole > 0)
                row += 1

    def _take(self, faces: Detections, time_s: float, cut: bool, *, whole: bool) -> list[int | None]:
        self._frames_since = 1 if whole else self._frames_since + 1
        self._whole_s = time_s if whole else self._whole_s
        chosen = self._followers(faces, time_s, cut, whole=whole)
        self._blind = 0 if self._followers.watched else self._blind + 1
        return chosen

    def _whole_from(self, batch: FrameBatch, cuts: Sequence[bool], row: int, lost: bool) -> int:
        """How many frames from `row` on are to be searched whole; 0: look near the followed faces."""
        left = len(cuts) - row
        if self._every == 1:
            return min(_FRAMES_AT_ONCE, left)
        if not self._followers.watched:  # more and more at once: the first may be the last without a face
            return min(_FRAMES_AT_ONCE, max(1, self._blind), left)
        due = self._frames_since >= self._every or batch.time_s[row] - self._whole_s >= WHOLE_EVERY_S
        return int(lost or due or cuts[row] or self._followers.missing)

    def _near(self, batch: FrameBatch, cuts: Sequence[bool], row: int) -> list[Detections]:
        """Faces about the watched ones, as far as these are found and stay in their windows."""
        stop = self._until(batch, cuts, row)
        boxes = np.stack([track.box for track in self._followers.watched])
        pixels = batch.pixels[row:stop]
        areas = [window(box, size_px(pixels)) for box in boxes]
        found = [self._detector.within(pixels, area) for area in areas]
        good: list[Detections] = []
        last = boxes
        for parts in zip(*found, strict=True):
            faces = merge(parts)
            now = _continued(last, faces)
            if now is None or (good and _drifted(boxes, now)):
                break
            good.append(faces)
            last = now
        return good

    def _until(self, batch: FrameBatch, cuts: Sequence[bool], row: int) -> int:
        """The first frame after `row` that is due to be searched whole, or does not fit in."""
        stop = min(row + _FRAMES_AT_ONCE, row + self._every - self._frames_since, len(cuts))
        late = [at for at in range(row, stop) if cuts[at] or batch.time_s[at] - self._whole_s >= WHOLE_EVERY_S]
        return min([stop, *late])


def window(box: NDArray[np.float32], size: tuple[int, int]) -> Area:
    """Where the face of `box` may be a moment later, in a frame of `size` (width, height) px."""
    side = float((box[2:] - box[:2]).max())
    middle = (box[:2] + box[2:]) / 2
    left, top = (max(0, int(edge)) for edge in np.floor(middle - _HALF_WINDOW * side))
    right, bottom = (int(edge) for edge in np.minimum(np.ceil(middle + _HALF_WINDOW * side), size))
    scales = pyramid(min(size), smallest_px=side * _SMALLEST, largest_px=side * _LARGEST)
    return Area(left, top, max(right, left + 1), max(bottom, top + 1), scales)


def _continued(boxes: NDArray[np.float32], faces: Detections) -> NDArray[np.float32] | None:
    """The box that continues each of `boxes` [B, 4]; None where one has none."""
    if not len(faces):
        return None
    overlap = np.stack([overlaps(box, faces.boxes) for box in boxes])
    return faces.boxes[overlap.argmax(axis=1)] if (overlap.max(axis=1) >= _SAME_FACE).all() else None


def _drifted(boxes: NDArray[np.float32], now: NDArray[np.float32]) -> bool:
    apart = np.abs((now[:, :2] + now[:, 2:] - boxes[:, :2] - boxes[:, 2:]) / 2).max(axis=1)
    return bool((apart > _DRIFT * (boxes[:, 2:] - boxes[:, :2]).max(axis=1)).any())
