"""Thinned lines keep what a quality check looks for; loudness and boxes are those of their frames."""

import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avfuse.apps.report.signals import (
    Lane,
    Line,
    frames_json,
    gaps_of,
    lanes_json,
    loudness_of_patches,
    loudness_of_sound,
    thin,
)
from avfuse.features_store.schema import JsonValue
from avfuse.features_store.store import FeatureStore
from avfuse.pipeline.media.probe import probe

TEN_MINUTES = 18_000


@given(rows=st.integers(1, 5000), at=st.floats(0, 1), gap=st.floats(0, 1), most=st.integers(30, 600))
def test_a_spike_and_a_gap_of_one_row_are_kept(rows, at, gap, most):
    values = np.sin(np.arange(rows) / 9)
    spike, missing = int(at * (rows - 1)), int(gap * (rows - 1))
    values[spike] = 7
    values[missing] = np.nan
    kept = thin(values, most)
    assert missing in kept
    assert spike in kept
    assert len(kept) <= max(most, 3)
    assert (np.diff(kept) > 0).all()


def test_few_rows_are_all_kept_and_none_make_none():
    assert thin(np.zeros(10), 30).tolist() == list(range(10))
    assert thin(np.zeros(0), 30).tolist() == []


def test_gaps_have_the_times_of_their_frames():
    there = np.array([0, 1, 1, 0, 0, 1, 0], bool)
    time_s = np.array([0.0, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7])
    found = gaps_of(there, time_s)
    assert np.allclose(found, [(0.0, 0.1), (0.3, 0.6), (0.7, 0.7 + 0.7 / 6)])
    assert gaps_of(np.ones(7, bool), time_s) == ()
    assert gaps_of(np.zeros(0, bool), np.zeros(0)) == ()


def test_of_too_many_gaps_the_nearest_join_and_none_is_lost():
    there = np.ones(1000, bool)
    there[100:140:2] = False  # twenty, two rows apart
    there[700] = False
    time_s = np.arange(1000) / 100
    assert np.allclose(gaps_of(there, time_s, most=2), [(1.0, 1.39), (7.0, 7.01)])
    assert len(gaps_of(there, time_s)) == 21


def test_loudness_follows_the_sound(make_clip, moving_frames, tone):
    info = probe(make_clip("loud.mkv", moving_frames, samples=tone, options=("-c:a", "pcm_s16le")))
    found = loudness_of_sound(info, np.arange(100) / 25)
    loud = 20 * np.log10(0.5) - 3.01
    assert np.allclose(found[:25], loud, atol=0.2)
    assert (found[26:49] < -55).all()
    assert np.allclose(found[50:], loud, atol=0.2)


def test_no_sound_before_the_sound_begins(make_clip, moving_frames, tone):
    info = probe(make_clip("late.mkv", moving_frames, samples=tone, late_audio_s=1.0))
    found = loudness_of_sound(info, np.arange(100) / 25)
    assert np.isnan(found[:23]).all()
    assert np.isfinite(found[27:]).all()


@pytest.mark.parametrize(("align", "frame"), [("start", 0), ("center", 46), ("end", 92)])
def test_loudness_of_stored_patches_is_that_at_the_frame(tmp_path, align, frame):
    patches = np.full((70, 96, 64), np.log(0.01), np.float32)
    patches[40, frame : frame + 4] = np.log(1.01)
    valid = np.ones(70, bool)
    valid[69] = False
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    entry: JsonValue = {"fingerprint": "f", "settings": {"audio_align": align}, "made_from": "audio"}
    arrays: dict[str, np.ndarray] = {"time": np.arange(70) / 25, "logmel": patches, "logmel_valid": valid}
    store.write("a", arrays, {"features": {"logmel": entry}})
    found = loudness_of_patches(store["a"])
    assert found[40] == pytest.approx(0, abs=1e-4)
    assert (found[[0, 39, 41, 68]] == -80).all()
    assert np.isnan(found[69])


def test_boxes_and_times_of_every_frame_come_back():
    time_s = np.arange(50) / 29.97
    boxes = np.random.default_rng(0).uniform(0, 4000, (50, 4)).astype(np.float32)
    boxes[7] = np.nan
    found = frames_json(time_s, boxes, np.linspace(0, 1, 50).astype(np.float32))
    ticks = np.frombuffer(base64.b64decode(found["ticks"]), "<i4")
    assert np.abs(ticks / 1e4 - time_s).max() <= 5e-5
    box = np.frombuffer(base64.b64decode(found["box"]), "<i2").reshape(-1, 4)
    assert (box[7] == -32768).all()
    assert np.abs(np.delete(box, 7, 0) - np.delete(boxes, 7, 0)).max() <= 0.5
    assert found["every"] == 1


def test_a_page_of_ten_minutes_and_twelve_systems_is_small():
    rng, time_s = np.random.default_rng(0), np.arange(TEN_MINUTES) / 30
    lines = [Line(f"run {n}", "run", time_s, rng.uniform(-1, 1, TEN_MINUTES), n) for n in range(12)]
    gaps = gaps_of(rng.random(TEN_MINUTES) < 0.5, time_s)
    lanes = [Lane(name, -1, 1, tuple(lines), gaps, "no face") for name in ("valence", "arousal", "score", "loudness")]
    boxes = rng.uniform(0, 4000, (TEN_MINUTES, 4)).astype(np.float32)
    drawn = {"lanes": lanes_json(lanes), "frames": frames_json(time_s, boxes, np.ones(TEN_MINUTES, np.float32))}
    assert len(json.dumps(drawn)) < 2.5e6


def test_of_hours_every_second_or_third_frame_is_kept():
    found = frames_json(np.arange(100_000) / 30, None, None)
    assert found["every"] == 3
    assert len(base64.b64decode(found["ticks"])) == 4 * 33_334
