"""The contact sheet shows faces along time and every long gap, wherever its faces come from."""

import numpy as np
import pytest
from PIL import Image

from avfuse.apps.report.sheet import FACES_SHOWN, GAPS_SHOWN, contact_sheet
from avfuse.features_store.store import FeatureStore
from avfuse.pipeline.media.probe import probe

ROWS = 100


@pytest.fixture
def trial(tmp_path):
    """A trial with the crops of which row n has the grey n, but for rows without a face, and whatever else."""

    def make(there, entries=None, **arrays):
        store = FeatureStore(tmp_path / "s.zarr", mode="a")
        arrays = {"time": np.arange(ROWS) / 25, "face_score": there.astype(np.float32), **arrays}
        store.write("b/clip", arrays, {"features": entries or {}})
        return store["b/clip"]

    return make


def grey(there):
    crops = np.repeat(np.arange(ROWS, dtype=np.uint8), 48 * 48 * 3).reshape(ROWS, 48, 48, 3)
    return {"crop48": crops, "crop48_valid": there}


def test_stored_crops_are_shown_in_order_with_the_gaps_between(trial, tmp_path):
    there = np.ones(ROWS, bool)
    there[[30, 31, 32, 80]] = False
    sheet = contact_sheet(trial(there, **grey(there)), np.arange(ROWS) / 25, there, None, None)
    assert sheet.source == "the store's crop48"
    gaps = [(t.row, round(t.end_s - t.time_s, 3)) for t in sheet.tiles if t.place is None and t.end_s is not None]
    assert gaps == [(30, 0.12), (80, 0.04)]
    assert [tile.time_s for tile in sheet.tiles] == sorted(tile.time_s for tile in sheet.tiles)
    faces = [tile for tile in sheet.tiles if tile.place is not None]
    assert len(faces) == len(sheet.faces) == FACES_SHOWN
    assert (faces[0].row, faces[-1].row) == (0, ROWS - 1)
    sheet.write(tmp_path / "faces.jpg")
    picture = np.asarray(Image.open(tmp_path / "faces.jpg"))
    for tile in faces:
        left, top = (96 * each + 48 for each in tile.at)
        assert abs(int(picture[top, left, 0]) - tile.row) <= 2


def test_only_the_longest_gaps_are_shown(trial):
    there = np.ones(ROWS, bool)
    there[::4] = False
    there[50:60] = False
    sheet = contact_sheet(trial(there, **grey(there)), np.arange(ROWS) / 25, there, None, None)
    gaps = [tile for tile in sheet.tiles if tile.place is None]
    assert len(gaps) == GAPS_SHOWN
    assert 48 in [tile.row for tile in gaps] or 50 in [tile.row for tile in gaps]


def test_nobody_to_be_seen_is_one_gap(trial):
    there = np.zeros(ROWS, bool)
    sheet = contact_sheet(trial(there), np.arange(ROWS) / 25, there, None, None)
    assert sheet.faces == ()
    assert [(tile.row, tile.end_s) for tile in sheet.tiles] == [(0, 4.0)]


def test_faces_are_cut_out_of_the_video_where_the_landmarks_are(trial, make_clip, moving_frames):
    there = np.ones(ROWS, bool)
    there[60:] = False
    left = 10.0 + np.arange(ROWS) // 2
    corners = np.array([[12, 14], [28, 14], [20, 22], [14, 30], [26, 30]], float)
    landmarks = (corners + np.stack([left, np.full(ROWS, 40.0)], 1)[:, None]).astype(np.float32)
    landmarks[~there] = np.nan
    info = probe(make_clip("faces.mp4", moving_frames))
    sheet = contact_sheet(trial(there, face_landmarks=landmarks), np.arange(ROWS) / 25, there, info, None)
    assert sheet.source.startswith("the video")
    assert len(sheet.faces) == FACES_SHOWN
    middles = np.array([face[46:66, 46:66].reshape(-1, 3).mean(0) for face in sheet.faces])
    assert np.abs(middles - (200, 150, 120)).max() < 12  # the square moves, and is in the middle of each crop


def test_the_organisers_crops_are_used_where_the_faces_come_from_them(trial, tmp_path):
    there = np.ones(ROWS, bool)
    there[10] = False
    (tmp_path / "aligned" / "clip").mkdir(parents=True)
    for row in np.flatnonzero(there):
        Image.new("RGB", (112, 112), (int(row), 0, 0)).save(tmp_path / "aligned" / "clip" / f"{row + 1:05d}.jpg")
    entries = {"faces": {"fingerprint": "f", "settings": {"aligned": True}, "made_from": "clock"}}
    nowhere = {"face_box": np.full((ROWS, 4), np.nan, np.float32), "face_landmarks": np.full((ROWS, 5, 2), np.nan)}
    arrays = {name: rows.astype(np.float32) for name, rows in nowhere.items()}
    made = trial(there, entries, **arrays)
    sheet = contact_sheet(made, np.arange(ROWS) / 25, there, None, tmp_path / "aligned")
    shown = [tile for tile in sheet.tiles if tile.place is not None]
    assert len(shown) == FACES_SHOWN
    assert all(abs(int(sheet.faces[t.place][50, 50, 0]) - t.row) <= 3 for t in shown if t.place is not None)
