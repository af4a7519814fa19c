"""Rows on disk and the arithmetic that fits them to a trial."""

from concurrent.futures import Future

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avfuse.features_store.clock import fill_missing, fit_rows
from avfuse.pipeline.extraction.assemble import PersonRows, person_arrays, sound_arrays
from avfuse.pipeline.extraction.row_buffer import GatheredRows, PendingRows, RowBuffer, settled
from avfuse.pipeline.faces.crops import SeenFaces, unseen


def buffered(tmp_path, rows):
    buffer = RowBuffer(tmp_path / "rows.f32", rows.shape[1:])
    for part in np.array_split(rows, 3):
        buffer.append(part)
    return buffer


def numbers(count, width=2):
    return np.arange(1, count * width + 1, dtype=np.float32).reshape(count, width)


@given(
    found=st.lists(st.booleans(), min_size=1, max_size=30),
    length=st.integers(1, 40),
    start=st.integers(0, 40),
    step=st.integers(1, 40),
    policy=st.sampled_from(["repeat", "zero"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_gathered_slices_equal_indexing_an_array(tmp_path, found, length, start, step, policy):
    (tmp_path / "rows.f32").unlink(missing_ok=True)
    found = np.array(found)
    rows = numbers(int(found.sum()))
    frame_of_row, _ = fit_rows(len(found), length)
    source = fill_missing(found, policy)[frame_of_row]
    gathered = GatheredRows(buffered(tmp_path, rows), source)
    whole = np.concatenate([rows, np.zeros((1, 2), np.float32)])[source]
    assert gathered.shape == (length, 2)
    assert np.array_equal(gathered[start : start + step], whole[start : start + step])


def test_a_buffer_refuses_other_rows(tmp_path):
    buffer = RowBuffer(tmp_path / "rows.f32", (2,))
    with pytest.raises(ValueError, match=r"rows\.f32 takes float32"):
        buffer.append(np.zeros((1, 3), np.float32))


def person(tmp_path, scores):
    seen = unseen(len(scores))
    scores = np.array(scores, np.float32)
    seen.boxes[scores > 0] = 1
    rows = numbers(int((scores > 0).sum()))
    return PersonRows({"iresnet50": buffered(tmp_path, rows)}, [SeenFaces(seen.boxes, seen.landmarks, scores)])


def test_a_missing_face_repeats_the_last_row_and_the_next_at_the_head(tmp_path):
    arrays = person_arrays(person(tmp_path, [0, 0.9, 0, 0.8]), 4, 6, "repeat")
    assert arrays["iresnet50"][0:6][:, 0].tolist() == [1, 1, 1, 3, 3, 3]
    assert arrays["iresnet50_valid"][:].tolist() == [False, True, False, True, False, False]


def test_a_missing_face_is_a_zero_row_on_request(tmp_path):
    arrays = person_arrays(person(tmp_path, [0, 0.9, 0, 0.8]), 4, 3, "zero")
    assert arrays["iresnet50"][0:3][:, 0].tolist() == [0, 1, 0]
    assert arrays["iresnet50_valid"][:].tolist() == [False, True, False]


def test_nobody_at_all_is_zero_rows(tmp_path):
    arrays = person_arrays(person(tmp_path, [0, 0]), 2, 3, "repeat")
    assert not arrays["iresnet50"][0:3].any()
    assert not arrays["iresnet50_valid"][:].any()


def test_rows_past_the_video_have_no_face(tmp_path):
    arrays = person_arrays(person(tmp_path, [0.9, 0.8]), 2, 3, "repeat")
    assert arrays["face_score"][:].tolist() == pytest.approx([0.9, 0.8, 0])
    assert np.isnan(arrays["face_box"][:][2]).all()


def test_audio_rows_without_a_full_patch_repeat_the_last(tmp_path):
    valid = np.array([True, True, False, False])
    arrays = sound_arrays({"vggish": buffered(tmp_path, numbers(3))}, {"vggish": valid}, 5)
    assert arrays["vggish"][0:5][:, 0].tolist() == [1, 3, 5, 5, 5]
    assert arrays["vggish_valid"][:].tolist() == [True, True, False, False, False]


def test_no_audio_is_zero_rows_all_invalid(tmp_path):
    arrays = sound_arrays({"vggish": RowBuffer(tmp_path / "none.f32", (128,))}, {}, 3)
    assert arrays["vggish"][0:3].shape == (3, 128)
    assert not arrays["vggish"][0:3].any()
    assert arrays["vggish_valid"][:].tolist() == [False] * 3


def test_rows_are_appended_in_the_order_in_which_they_were_asked_for(tmp_path):
    buffer = RowBuffer(tmp_path / "rows.f32", (2,))
    pending = PendingRows(buffer, at_most=3)
    futures: list[Future[np.ndarray]] = [Future() for _ in range(3)]
    with settled([pending]):
        pending.expect(futures)
        futures[2].set_result(numbers(1) + 200)
        futures[0].set_result(numbers(2))
        pending.expect([])
        assert len(buffer) == 2
        futures[1].set_result(numbers(1) + 100)
    np.testing.assert_array_equal(buffer.read(0, 4), [[1, 2], [3, 4], [101, 102], [201, 202]])


def test_after_an_error_rows_on_their_way_are_cancelled(tmp_path):
    pending = PendingRows(RowBuffer(tmp_path / "rows.f32", (2,)))
    future: Future[np.ndarray] = Future()
    pending.expect([future])
    with pytest.raises(ValueError, match="odd"), settled([pending]):
        raise ValueError("odd")
    assert future.cancelled()


def test_boxes_of_the_first_frames_where_labels_are_fewer(tmp_path):
    arrays = person_arrays(person(tmp_path, [0.9, 0.8, 0.7]), 3, 2, "repeat")
    assert arrays["face_score"][:].tolist() == pytest.approx([0.9, 0.8])


def test_sound_of_the_first_frames_where_labels_are_fewer(tmp_path):
    arrays = sound_arrays(
        {"vggish": buffered(tmp_path, numbers(4))}, {"vggish": np.array([True, True, False, False])}, 2
    )
    assert arrays["vggish_valid"][:].tolist() == [True, True]
