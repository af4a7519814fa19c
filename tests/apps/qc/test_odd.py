"""Whatever is odd in one trial is a line about it: `avfuse qc` measures what it can, and all others."""

import json
import shutil

import numpy as np
import pytest

from avfuse.apps.qc.measures import measure
from avfuse.apps.qc.mouth_and_voice import quick_sync
from avfuse.features_store.store import FeatureStore
from avfuse.features_store.trial import Trial
from avfuse.pipeline.audio.logmel import patches
from avfuse.pipeline.runs.discover import videos_by_name

ROWS, RATE_HZ = 100, 25
SIDE_PX = 96
CORNERS_PX = np.array([[34, 40], [62, 40], [48, 54], [38, 66], [58, 66]], "f4")
BROKEN = "times cannot be read"


@pytest.fixture(scope="module")
def talk():
    """Arrays of somebody who talks: times, faces, crops whose mouth opens and shuts, the sound to it."""
    rng = np.random.default_rng(3)
    time_s = np.arange(ROWS) / RATE_HZ
    starts_s, widths_s = np.sort(rng.uniform(0, 4, 12)), rng.uniform(0.08, 0.2, 12)

    def opened(at_s):
        return np.exp(-(((at_s[:, None] - starts_s) / widths_s) ** 2)).sum(axis=1)

    at_s = np.arange(6 * 16_000) / 16_000
    samples = (0.4 * np.minimum(opened(at_s), 1) * np.sin(2 * np.pi * 700 * at_s)).astype(np.float32)
    logmel = np.concatenate(
        [each.frames[each.firsts[:, None] + np.arange(96)] for each in patches([samples], time_s, "start", ROWS)]
    )
    crops = np.full((ROWS, 48, 48, 3), 150, np.uint8)
    for row, wide in enumerate(np.minimum(opened(time_s), 1)):
        crops[row, 38 : 38 + round(6 * wide), 20:28] = 30
    return {
        "time": time_s,
        "face_box": np.tile(np.array([10, 10, 80, 80], "f4"), (ROWS, 1)),
        "face_landmarks": np.tile(CORNERS_PX, (ROWS, 1, 1)),
        "face_score": np.ones(ROWS, np.float32),
        "crop48": crops,
        "crop48_valid": np.ones(ROWS, bool),
        "logmel": logmel.astype(np.float32),
        "logmel_valid": np.ones(ROWS, bool),
    }


def changed(arrays, what):
    """The arrays of a trial in which this is odd."""
    arrays = dict(arrays)
    if what == "no times":
        del arrays["time"]
    if what == "times that fall":
        arrays["time"] = arrays["time"][::-1].copy()
    if what == "times that are not known":
        arrays["time"] = np.where(np.arange(ROWS) == 7, np.nan, arrays["time"])
    if what == "no flags":
        del arrays["crop48_valid"]
    if what == "nobody":
        arrays |= {"face_score": np.zeros(ROWS, np.float32), "crop48_valid": np.zeros(ROWS, bool)}
    if what in ("no frames", "one frame"):
        arrays = {name: rows[: what == "one frame"] for name, rows in arrays.items()}
    if what == "flat logmel":
        arrays["logmel"] = arrays["logmel"][:, 0]
    if what == "flat crops":
        arrays["crop48"] = arrays["crop48"][..., 0]
    if what == "black crops":
        arrays["crop48"] = np.zeros_like(arrays["crop48"])
    return arrays


def damage(store, trial, array):
    for path in (store / trial / array).rglob("*"):
        if path.is_file() and path.name != "zarr.json":
            path.write_bytes(path.read_bytes()[:-9] + b"\0" * 9)


# What is odd, what the trial falls short of, why its sync is not sure.
ODD = {
    "no times": ([BROKEN], None),
    "times that fall": ([BROKEN], None),
    "times that are not known": ([BROKEN], None),
    "no flags": ([], None),
    "nobody": (["faces 0.0% < 50.0%"], "no face"),
    "no frames": (["no frames"], None),
    "one frame": ([], "no face"),
    "flat logmel": (["sound cannot be read"], None),
    "flat crops": (["mouths cannot be read"], None),
    "black crops": ([], "a mouth that does not move"),
    "no sound": (["silence 100.0% > 90.0%"], "no sound"),
    "damaged face_score": (["faces cannot be read"], "sure"),
    "damaged crop48": (["mouths cannot be read"], None),
    "damaged logmel": (["sound cannot be read"], None),
    "damaged time": ([BROKEN], None),
}


@pytest.fixture(scope="module")
def odd_store(talk, tmp_path_factory):
    """A store of trials each of which is odd in its way, and a good one before and after them."""
    path = tmp_path_factory.mktemp("odd") / "features.zarr"
    store = FeatureStore(path, mode="a")
    for what in ("a good one", *ODD, "z good one"):
        arrays = changed(talk, what)
        frames = len(arrays["face_score"])
        store.write(what, arrays, {"frames_decoded": frames, "audio": "absent" if what == "no sound" else "present"})
        if what.startswith("damaged"):
            damage(path, what, what.split()[1])
    return path


@pytest.mark.parametrize("more", [(), ("--videos", "{videos}")])
def test_no_trial_keeps_another_from_being_measured(odd_store, avfuse, tmp_path, more):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "no flags.mp4").write_bytes(b"no video")
    words = [word.format(videos=tmp_path / "videos") for word in more]
    result = avfuse("qc", "--store", odd_store, "--json", *words)
    assert result.exit_code == 3, result.stderr
    trials = {each["trial"]: each for each in json.loads(result.stdout, parse_constant=pytest.fail)["trials"]}
    assert len(trials) == len(ODD) + 2
    for name in ("a good one", "z good one"):
        assert trials[name]["short_of"] == []
        assert trials[name]["sync"]["verdict"] == "sure"
        assert trials[name]["sync"]["offset_s"] == pytest.approx(0, abs=0.04)
    for what, (short_of, sync) in ODD.items():
        assert trials[what]["short_of"] == short_of, what
        said = trials[what]["sync"]
        assert said["verdict"] == {None: "not checked", "sure": "sure"}.get(sync, "not sure"), what
        if said["verdict"] == "not sure":
            assert said["reason"] == sync
    assert trials["damaged face_score"]["silence"] < 0.9
    assert "damaged crop48: its mouths cannot be read: " in result.stderr
    assert f"{len(ODD) + 2} trials checked" in result.stderr


def test_the_table_of_odd_trials(odd_store, avfuse):
    result = avfuse("qc", "--store", odd_store)
    lines = {line[:24].strip(): line for line in result.stdout.splitlines()}
    assert lines["damaged time"].endswith(BROKEN)
    assert " +0.0" in lines["a good one"] or " -0.0" in lines["a good one"]
    assert "note: nobody: sync not sure: no face" in result.stderr
    assert "note: no frames: it has no frames" in result.stderr


@pytest.mark.parametrize(
    ("points", "rows", "lost"),
    [("two alike", 20, 0), ("all alike", 20, 20), ("zero", 20, 20), ("not known", 20, 20), ("infinite", 100, 100)],
)
def test_landmarks_that_say_nothing(talk, make_clip, tmp_path, points, rows, lost):
    """Rows that have such landmarks count as rows without a face, and are said; without any others nothing is sure."""
    (tmp_path / "videos").mkdir()
    frames = np.full((ROWS, SIDE_PX, SIDE_PX, 3), 150, np.uint8)
    rng = np.random.default_rng(0)
    for row, down in enumerate(rng.integers(0, 12, ROWS)):
        frames[row, 62 : 62 + down, 40:56] = 20
    samples = rng.normal(0, 0.1, 4 * 44_100)
    make_clip("clip.mp4", frames, rate=str(RATE_HZ), samples=samples).rename(tmp_path / "videos" / "clip.mp4")
    landmarks = talk["face_landmarks"].copy()
    if points == "two alike":
        landmarks[:rows, 1] = landmarks[:rows, 0]
    else:
        landmarks[:rows] = {"all alike": 40, "zero": 0, "not known": np.nan, "infinite": np.inf}[points]
    store = FeatureStore(tmp_path / "features.zarr", mode="a")
    kept = {name: values for name, values in talk.items() if not name.startswith(("crop48", "logmel"))}
    store.write("clip", kept | {"face_landmarks": landmarks}, {"frames_decoded": ROWS, "audio": "present"})
    measured = measure(store["clip"], videos_by_name(tmp_path / "videos"))
    assert not measured.unreadable
    assert measured.sync is not None
    assert measured.sync.reason == ("no face" if lost == ROWS else "")
    said = [note.split()[0] for note in measured.notes if "landmarks cannot be used" in note]
    assert said == ([str(lost)] if lost else [])


def test_a_long_trial_is_read_in_pieces_for_a_report(plant_talk, tmp_path, monkeypatch):
    """A minute of it is enough: 600 trials of ten minutes each stay quick."""
    store = FeatureStore(tmp_path / "features.zarr", mode="a")
    store.write("long", plant_talk(150, 0.2), {"audio": "present"})
    read, window = [], Trial.window

    def counted(trial, feature, start, stop):
        read.append(stop - start)
        return window(trial, feature, start, stop)

    monkeypatch.setattr(Trial, "window", counted)
    found = quick_sync(store["long"], None, [])
    assert found is not None
    assert found.late_s == pytest.approx(0.2, abs=0.05)
    assert sum(read) <= 2 * (60 * 12 + 8)


def test_a_trial_that_goes_meanwhile_is_one_that_cannot_be_read(odd_store, avfuse, tmp_path, monkeypatch):
    from avfuse.apps.qc import measures

    path = shutil.copytree(odd_store, tmp_path / "features.zarr")

    def remove_next(trial, *more):
        shutil.rmtree(path / "nobody", ignore_errors=True)
        return measure(trial, *more)

    monkeypatch.setattr(measures, "measure", remove_next)
    result = avfuse("qc", "--store", path, "--json", "--trials", "a good one,nobody,z good one")
    trials = {each["trial"]: each for each in json.loads(result.stdout)["trials"]}
    assert trials["nobody"]["short_of"] == ["rows cannot be read", "no frames"]
    assert trials["z good one"]["short_of"] == []
