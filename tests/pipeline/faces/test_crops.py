"""Alignment to the ArcFace template, and the organiser's crops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage.transform import SimilarityTransform, warp

from avfuse.encoders.table import CROP_PX
from avfuse.pipeline.faces.align import TEMPLATE_PX, align, neighbours, similarity
from avfuse.pipeline.faces.crops import FaceCrops, SeenFaces, aligned_crops, known_faces, unseen
from avfuse.pipeline.media.types import FrameBatch

CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # above left, above right, below left, below right
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
    assert crop is not None
    assert np.abs(crop.astype(float) - expected).max() <= 0.51


def test_the_template_is_insightfaces():
    """The numbers of `arcface_src` in insightface's face_align.py (MIT), written out."""
    published = [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
    assert TEMPLATE_PX.tolist() == published


def warped(frame, landmarks, side_px=CROP_PX):
    """Pixels have a width: where 112 of them have the centre c, 224 have it at 2 c + 1/2."""
    scale = side_px / CROP_PX
    theirs = SimilarityTransform.from_estimate(landmarks, (TEMPLATE_PX + 0.5) * scale - 0.5)
    return warp(frame, theirs.inverse, output_shape=(side_px, side_px), order=1, preserve_range=True)


@pytest.mark.parametrize("side_px", [CROP_PX, 160, 224, 448])
def test_a_larger_view_lies_on_the_scaled_template(picture, side_px):
    crop = align(picture, LANDMARKS_PX, side_px)
    assert crop is not None
    assert crop.shape == (side_px, side_px, 3)
    assert np.abs(crop.astype(float) - warped(picture, LANDMARKS_PX, side_px)).max() <= 0.51


def test_a_landmark_lies_where_the_template_says():
    """A bump of light on each landmark of a face that fits the template: its middle in crops of 112 and 224 px."""
    y, x = np.mgrid[0:300, 0:300]
    marks = TEMPLATE_PX * 1.3 + (70, 60)
    for mark, place in zip(marks, TEMPLATE_PX, strict=True):
        bump = 200 * np.exp(-((x - mark[0]) ** 2 + (y - mark[1]) ** 2) / 30)
        frame = np.repeat(bump[..., None], 3, axis=2).astype(np.uint8)
        for side_px, expected in ((CROP_PX, place), (224, 2 * place + 0.5)):
            crop = align(frame, marks, side_px)
            assert crop is not None
            light = crop[..., 0].astype(float)
            middle = [np.sum(light * axis) / light.sum() for axis in np.mgrid[0:side_px, 0:side_px][::-1]]
            np.testing.assert_allclose(middle, expected, atol=0.05 * side_px / CROP_PX)


def test_112_px_are_cut_as_ever():
    """The template's own pixels: their centres come out as the whole numbers, bit for bit."""
    of_template = (np.arange(CROP_PX) + 0.5) * (CROP_PX / CROP_PX) - 0.5
    assert (of_template == np.arange(CROP_PX)).all()


def test_views_do_not_depend_on_each_other(picture):
    seen = SeenFaces(np.ones((1, 4), np.float32), LANDMARKS_PX[None].astype(np.float32), np.ones(1, np.float32))
    batch = FrameBatch(picture[None], np.zeros(1))
    (both,) = next(known_faces([batch], [seen], (224, CROP_PX)))
    assert list(both.views) == [224, CROP_PX]
    for side_px, view in both.views.items():
        (alone,) = next(known_faces([batch], [seen], (side_px,)))
        assert list(alone.views) == [side_px]
        np.testing.assert_array_equal(alone.views[side_px], view)


def test_aligned_crops_in_more_pixels(tmp_path, picture):
    """Enlarged by PIL's bicubic, as S4's code does; crops of the wanted size are taken as they are."""
    small = Image.fromarray(picture[:CROP_PX, :CROP_PX])
    small.save(tmp_path / "00001.jpg", format="PNG")
    large = Image.fromarray(np.ascontiguousarray(np.resize(picture, (224, 224, 3))))
    large.save(tmp_path / "00002.jpg", format="PNG")
    crops, problems = aligned_crops(tmp_path, 0, 3, (CROP_PX, 224))
    assert problems == []
    assert {px: view.shape for px, view in crops.views.items()} == {112: (2, 112, 112, 3), 224: (2, 224, 224, 3)}
    np.testing.assert_array_equal(crops.views[CROP_PX][0], np.asarray(small))
    np.testing.assert_array_equal(crops.views[224][0], np.asarray(small.resize((224, 224), Image.Resampling.BICUBIC)))
    np.testing.assert_array_equal(crops.views[224][1], np.asarray(large))


def test_a_face_well_inside_the_frame_equals_scikit_image_too():
    """The quick way of taking pixels."""
    y, x = np.mgrid[0:300, 0:400]
    frame = np.stack([127 + 100 * np.sin(x / 9 + n) * np.cos(y / 7 - n) for n in range(3)], axis=2).astype(np.uint8)
    marks = LANDMARKS_PX + 110
    crop = align(frame, marks)
    assert crop is not None
    assert np.abs(crop.astype(float) - warped(frame, marks)).max() <= 0.51
    top, left = np.mgrid[0:298:7, 0:398:11]
    for pixels, (down, right) in zip(neighbours(frame, top, left), CORNERS, strict=True):
        np.testing.assert_array_equal(pixels, frame[top + down, left + right])


@pytest.mark.parametrize("over", [(95, 0), (0, 60), (-60, 0), (0, -50)], ids=["right", "bottom", "left", "top"])
def test_a_face_over_an_edge_is_cut_off_there(over):
    """Bright up to the edge, black beyond it: between the last pixel and the first one outside, and not elsewhere."""
    frame = np.full((160, 200, 3), 200, np.uint8)
    marks = LANDMARKS_PX + over
    crop = align(frame, marks)
    a, b = similarity(marks, TEMPLATE_PX)
    places = (np.arange(CROP_PX) + 1j * np.arange(CROP_PX)[:, None] - b) / a
    within = (places.real >= 0) & (places.real <= 199) & (places.imag >= 0) & (places.imag <= 159)
    outside = (places.real <= -1) | (places.real >= 200) | (places.imag <= -1) | (places.imag >= 160)
    assert within.any()
    assert outside.any()
    assert crop is not None
    assert (crop[within] == 200).all()
    assert (crop[outside] == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300, 1e308])
def test_landmarks_that_are_not_numbers_give_no_crop(picture, bad):
    marks = LANDMARKS_PX.copy()
    marks[2, 0] = bad
    with np.errstate(all="ignore"):
        assert align(picture, marks) is None


def test_outside_the_frame_is_black(picture):
    crop = align(picture, LANDMARKS_PX - 1000)
    assert crop is not None
    assert crop.max() == 0


def test_landmarks_in_one_point_give_no_crop(picture):
    assert align(picture, np.full((5, 2), 50.0)) is None


def test_crops_and_flags_must_agree():
    with pytest.raises(ValueError, match="1 crops for 0 frames with a face"):
        FaceCrops({CROP_PX: np.zeros((1, CROP_PX, CROP_PX, 3), np.uint8)}, unseen(3))


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
    assert [int(pixels.mean()) for pixels in crops.views[CROP_PX]] == [30, 50, 60]
    assert np.isnan(crops.seen.boxes).all()
    assert [problem.split(":")[0] for problem in problems] == ["00007.jpg", "00008.jpg"]


@pytest.mark.parametrize(("row", "column"), [(8, 18), (9, 18), (8, 19), (0, -1)])
def test_neighbours_beyond_the_edges_are_black(row, column):
    """(8, 18) is the last position with pixels below and to the right of it."""
    frame = np.random.default_rng(0).integers(1, 256, (10, 20, 3), dtype=np.uint8)
    bordered = np.pad(frame, ((1, 1), (1, 1), (0, 0)))
    top, left = np.array([0, row]), np.array([0, column])
    for pixels, (down, right) in zip(neighbours(frame, top, left), CORNERS, strict=True):
        np.testing.assert_array_equal(pixels, bordered[top + down + 1, left + right + 1])
