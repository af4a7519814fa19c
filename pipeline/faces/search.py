"""Where to look for faces in which frame: all of it now and then, else only where the followed ones were.

    whole  ·  ·  ·  ·  ·  ·  ·  whole  ·  ·  ·  whole  ·  ·  ·  ·  ·  ·
             └ window about each followed face, of scales about its own ┘       a cut, or somebody is not found

The same cascade looks through a window, on the same grid of the same pyramid, so that it finds the same box there
as in the whole frame. (R-Net and O-Net alone, begun at the last box, do not: MTCNN's box depends on which of P-Net's
candidates wins.) When and where to look is ours. Tested by tests/pipeline/faces/test_search.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..media.types import FrameBatch
from .detections import Detections, merge, overlaps
from .mtcnn import FaceDetector
from .pyramid import Area, pyramid
from .tracking import Followers

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
            whole = self._whole_from(batch, cuts, row, lost)
            found = self._detector(batch.pixels[row : row + whole]) if whole else self._near(batch, cuts, row)
            lost = not found
            for faces in found:
                time_s = float(batch.time_s[row])
                self._frames_since = 1 if whole else self._frames_since + 1
                self._whole_s = time_s if whole else self._whole_s
                chosen = self._followers(faces, time_s, cuts[row], whole=whole > 0)
                self._blind = 0 if self._followers.watched else self._blind + 1
                yield faces, chosen
                row += 1

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
        # Up to the next frame that is due to be searched whole.
        stop = min(row + _FRAMES_AT_ONCE, row + self._every - self._frames_since, len(cuts))
        late = (at for at in range(row, stop) if cuts[at] or batch.time_s[at] - self._whole_s >= WHOLE_EVERY_S)
        pixels = batch.pixels[row : next(late, stop)]
        height, width = pixels.shape[1:3]
        boxes = np.stack([track.box for track in self._followers.watched])
        sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
        found = [self._detector(pixels, window(box, (width, height))) for box in boxes]
        good: list[Detections] = []
        last = boxes
        for parts in zip(*found, strict=True):
            faces = merge(parts)
            if not len(faces):
                break
            overlap = np.stack([overlaps(box, faces.boxes) for box in last])
            if not (overlap.max(axis=1) >= _SAME_FACE).all():
                break
            last = faces.boxes[overlap.argmax(axis=1)]
            apart = np.abs((last[:, :2] + last[:, 2:] - boxes[:, :2] - boxes[:, 2:]) / 2).max(axis=1)
            if good and (apart > _DRIFT * sides).any():
                break
            good.append(faces)
        return good


def window(box: NDArray[np.float32], size: tuple[int, int]) -> Area:
    """Where the face of `box` [4] may be a moment later, in a frame of `size` (width, height) px."""
    side = float((box[2:] - box[:2]).max())
    middle = (box[:2] + box[2:]) / 2
    left, top = (max(0, int(edge)) for edge in np.floor(middle - _HALF_WINDOW * side))
    right, bottom = (int(edge) for edge in np.minimum(np.ceil(middle + _HALF_WINDOW * side), size))
    scales = pyramid(min(size), smallest_px=side * _SMALLEST, largest_px=side * _LARGEST)
    return Area(left, top, max(right, left + 1), max(bottom, top + 1), scales)
