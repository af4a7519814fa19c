import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avfuse.features_store.schema import CHUNK_BYTES, SHARD_BYTES, check_trial_name, layout, spec_of, whole_trial


@pytest.mark.parametrize("name", ["a", "batch1/10-60-1280x720", "a b/ü.x", "...a"[3:], "x" * 255, "1.mp4_left"])
def test_names(name):
    check_trial_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "/a", "../a", "a/../b", "a/./b", ".", "a//b", "a/", "a\0b", "a\\b", ".tmp/x", "a/.b", "a/zarr.json"],
)
def test_names_that_cannot_be(name):
    with pytest.raises(ValueError, match="cannot name a trial"):
        check_trial_name(name)


@pytest.mark.parametrize(
    ("trial", "whole"),
    [
        ("clip/face0", "clip"),
        ("a/clip/face12", "a/clip"),
        ("a/faces/x", "a/faces/x"),
        ("face0", "face0"),
        ("a/face", "a/face"),
    ],
)
def test_the_whole_picture_of_a_face(trial, whole):
    assert whole_trial(trial) == whole


@given(st.integers(0, 10**7), st.integers(1, 10**6), st.sampled_from([1, 4, 8]))
def test_layout(rows, width, itemsize):
    plan = layout("other", (rows, width), itemsize)
    row_bytes = width * itemsize
    assert plan.chunk[1:] == plan.shard[1:] == (width,)
    assert plan.shard[0] % plan.chunk[0] == 0
    assert plan.chunk[0] == 1 or plan.chunk[0] * row_bytes <= CHUNK_BYTES
    assert plan.shard[0] == plan.chunk[0] or plan.shard[0] * row_bytes <= SHARD_BYTES
    assert plan.shard[0] - plan.chunk[0] < max(rows, 1)  # no chunk beyond the last row


@pytest.mark.parametrize("name", ["x" * 256, "ü" * 128, "failures.jsonl", "failures.jsonl/a"])
def test_names_no_disk_or_store_takes(name):
    with pytest.raises(ValueError, match="cannot name a trial"):
        check_trial_name(name)


def test_usual_trial_is_one_shard_of_megabytes():
    plan = layout("iresnet50", (9000, 512), 4)  # a plain feature, named after its array
    assert (plan.dims, plan.chunk) == (("frame", "feature_iresnet50"), (512, 512))
    assert plan.shard == (18 * 512, 512)


def test_specs():
    assert spec_of("vggish_valid", 1).dtype == "bool"
    assert spec_of("clip", 2).axes == ("feature_clip",)
    assert spec_of("clip", 3).axes == ("feature_clip", "feature_clip_2")
    assert spec_of("level", 1).axes == ()
    assert spec_of("face_landmarks", 3).axes == ("landmark", "xy")
    assert np.dtype(spec_of("time", 1).dtype) == np.float64


@pytest.mark.parametrize(("name", "shape"), [("time", (3, 1)), ("face_box", (3,)), ("clip", (3, 0))])
def test_wrong_shapes(name, shape):
    with pytest.raises(ValueError, match=name):
        layout(name, shape, 4)
