"""Alignment to the ArcFace template, and the organiser's crops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage.transform import SimilarityTransform, warp

from avfuse.pipeline.faces import (
    CROP_PX,
    TEMPLATE_PX,
    FaceCrops,
    SeenFaces,
    align,
    aligned_crops,
    similarity,
    unseen,
)

LANDMARKS_PX = np.array([[60.0, 52], [103, 55], [80, 80], [62, 101], [98, 104]])


@pytest.fixture
def picture():
    """A smooth picture, so that interpolation has one right answer to compare with."""
    y, x = np.mgrid[0:160, 0:200]
    waves = [127 + 100 * np.sin(x / 9 + phase) * np.cos(y / 7 - phase) for phase in (0, 1, 2)]
    return np.stack(waves, axis=2).astype(np.uint8)


def test_similarity_equals_scikit_image():
    theirs = SimilarityTransform.from_estimate(LANDMARKS_PX, TEMPLATE_PX)
    a, b = similarity(LANDMARKS_PX, TEMPLATE_PX)
    assert a == pytest.approx(complex(theirs.params[0, 0], theirs.params[1, 0]), abs=1e-12)
    assert b == pytest.approx(complex(theirs.params[0, 2], theirs.params[1, 2]), abs=1e-9)


@given(st.floats(0.2, 5), st.floats(-3.1, 3.1), st.floats(-500, 500), st.floats(-500, 500))
def test_similarity_finds_an_exact_transform(scale, angle, dx, dy):
    a, b = scale * np.exp(1j * angle), complex(dx, dy)
    z = a * (LANDMARKS_PX[:, 0] + 1j * LANDMARKS_PX[:, 1]) + b
    found_a, found_b = similarity(LANDMARKS_PX, np.stack([z.real, z.imag], axis=1))
    assert abs(found_a - a) < 1e-9 * scale
    assert abs(found_b - b) < 1e-6


def test_crop_equals_scikit_image_warp(picture):
    theirs = SimilarityTransform.from_estimate(LANDMARKS_PX, TEMPLATE_PX)
    expected = warp(picture, theirs.inverse, output_shape=(CROP_PX, CROP_PX), order=1, preserve_range=True)
    crop = align(picture, LANDMARKS_PX)
    assert np.abs(crop.astype(float) - expected).max() <= 0.51


def test_outside_the_frame_is_black(picture):
    assert align(picture, LANDMARKS_PX - 1000).max() == 0


def test_landmarks_in_one_point_give_no_crop(picture):
    assert align(picture, np.full((5, 2), 50.0)) is None


def test_crops_and_flags_must_agree():
    with pytest.raises(ValueError, match="1 crops for 0 frames"):
        FaceCrops(np.zeros((1, CROP_PX, CROP_PX, 3), np.uint8), unseen(3))


def test_found_follows_the_score():
    seen = SeenFaces(np.zeros((2, 4), np.float32), np.zeros((2, 5, 2), np.float32), np.array([0, 0.9], np.float32))
    assert seen.found.tolist() == [False, True]


def test_aligned_crops_by_number(tmp_path):
    """Frame i is file i + 1; a missing number is a missing face, a broken picture too, and is reported."""
    for number, level in ((3, 30), (5, 50)):
        Image.fromarray(np.full((CROP_PX, CROP_PX, 3), level, np.uint8)).save(tmp_path / f"{number:05d}.jpg")
    Image.fromarray(np.full((200, 200, 3), 60, np.uint8)).save(tmp_path / "00006.jpg")
    (tmp_path / "00007.jpg").write_bytes(b"no picture")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "00008.jpg", format="PNG")  # a bomb of 400 million px
    crops, problems = aligned_crops(tmp_path, 2, 6)
    assert crops.seen.found.tolist() == [True, False, True, True, False, False]
    assert [int(pixels.mean()) for pixels in crops.pixels] == [30, 50, 60]
    assert np.isnan(crops.seen.boxes).all()
    assert [problem.split(":")[0] for problem in problems] == ["00007.jpg", "00008.jpg"]
