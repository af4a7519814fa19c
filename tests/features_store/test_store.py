import json
import os
import pickle
from typing import Any

import numpy as np
import pytest
import zarr

from avfuse.features_store.schema import ArraySpec, DescribedRows, StoreMismatch
from avfuse.features_store.store import FeatureStore


def assert_same(trial, arrays):
    assert sorted(trial) == sorted(arrays)
    for name, values in arrays.items():
        assert trial[name].dtype == values.dtype
        assert trial[name][:].tobytes() == values.tobytes(), name


def test_round_trip(store, arrays, attributes):
    store.write("batch1/x", arrays, attributes)
    trial = FeatureStore(store.path)["batch1/x"]
    assert_same(trial, arrays)
    assert trial.rows == 40
    assert trial.features == ["iresnet50", "vggish"]
    assert (trial.time_s == arrays["time"]).all()
    assert (trial.valid("iresnet50") == arrays["iresnet50_valid"]).all()
    assert (trial.window("vggish", 3, 9) == arrays["vggish"][3:9]).all()
    assert {**trial.attributes, **attributes} == trial.attributes
    assert trial.attributes["complete"] is True
    assert list(trial.attributes)[-1] == "complete"


def test_mapping(store, arrays):
    for name in ("b/2", "a", "b/1"):
        store.write(name, arrays, {})
    assert list(store) == store.trials() == ["a", "b/1", "b/2"]
    assert len(store) == 3
    assert "a" in store
    for absent in ("b", "c", "../a", "", 5):
        assert absent not in store
    with pytest.raises(KeyError, match="no complete trial 'c'"):
        store["c"]
    with pytest.raises(KeyError, match="no array 'mfcc', only face_box"):
        store["a"]["mfcc"]
    assert "iresnet50" in repr(store["a"])
    assert store.path in repr(store)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 2), (0, 41)])
def test_window_outside(store, arrays, start, stop):
    store.write("a", arrays, {})
    with pytest.raises(ValueError, match="of 40 rows"):
        store["a"].window("vggish", start, stop)


def test_edges_of_floats_survive(store):
    values = np.array([[-0.0, 0.0, np.nan, np.inf, -np.inf, 1e-45]], np.float32)
    store.write("a", {"x": values, "none": np.zeros((1, 3), np.float32)}, {})
    assert store["a"]["x"][:].tobytes() == values.tobytes()


def test_no_rows(store):
    store.write("a", {"time": np.zeros(0), "x": np.zeros((0, 3), np.float32)}, {})
    assert store["a"].rows == 0
    assert store["a"]["x"][:].shape == (0, 3)


def test_big_endian_is_stored_little(store):
    values = np.arange(6, dtype=">i4").reshape(2, 3)
    store.write("a", {"x": values}, {})
    assert (store["a"]["x"][:] == values).all()


class Rows:
    """A source that lies elsewhere and remembers what was asked of it."""

    def __init__(self, rows, width):
        self.shape, self.dtype, self.asked = (rows, width), np.dtype(np.float32), []

    def __getitem__(self, rows):
        self.asked.append(rows.stop - rows.start)
        return np.repeat(np.arange(rows.start, rows.stop, dtype=np.float32)[:, None], self.shape[1], axis=1)


def test_written_a_shard_at_a_time(store, monkeypatch):
    monkeypatch.setattr("avfuse.features_store.schema.CHUNK_BYTES", 1 << 12)
    monkeypatch.setattr("avfuse.features_store.schema.SHARD_BYTES", 1 << 14)
    source = Rows(1000, 64)
    store.write("a", {"x": source}, {})
    assert source.asked == [64] * 15 + [40]
    assert store["a"]["x"].chunks == (16, 64)
    assert (store["a"]["x"][:, 0] == np.arange(1000)).all()


def test_slices_read_only_what_they_need(store, monkeypatch):
    rng = np.random.default_rng(0)
    store.write("a", {"x": rng.standard_normal((4000, 512)).astype(np.float32)}, {})
    read = []
    get = zarr.storage.LocalStore.get

    async def counted(self, key, prototype, byte_range=None):
        found = await get(self, key, prototype, byte_range)
        read.append(0 if found is None else len(found))
        return found

    monkeypatch.setattr(zarr.storage.LocalStore, "get", counted)
    store["a"]["x"][600:700]
    assert 1_000_000 > sum(read) / 1.1 > 500_000  # one chunk of eight, and the index


def test_plain_zarr_opens_it(store, arrays):
    store.write("a", arrays, {})
    group = zarr.open_group(store.path, mode="r")
    assert group.attrs["avfuse_format"] == 2
    found = group["a/iresnet50"]
    assert isinstance(found, zarr.Array)
    assert np.array_equal(np.asarray(found[:]), arrays["iresnet50"])
    metadata: Any = found.metadata
    assert metadata.dimension_names[0] == "frame"
    assert found.attrs["units"] == "1"
    assert group["a/time"].attrs.asdict()["units"] == "s"
    codecs = json.dumps(found.metadata.to_dict(), default=str)
    assert codecs.index("crc32c") < codecs.index("zstd")


def test_most_trials_are_one_file_an_array(store, arrays):
    store.write("a", arrays, {})
    files = [name for _, _, names in os.walk(store.path) for name in names if name != "zarr.json"]
    assert len(files) == len(arrays)


def test_xarray_opens_it(store, arrays):
    import xarray

    store.write("b/a", arrays, {"fps": "25"})
    with xarray.open_zarr(store.path, group="b/a", consolidated=False) as data:
        assert list(data.coords) == ["time"]
        assert data.time.dims == ("frame",)
        assert data.attrs["fps"] == "25"
        assert data.iresnet50.dims == ("frame", "feature_iresnet50")
        assert data.face_box.attrs["units"] == "px"
        for name, values in arrays.items():
            np.testing.assert_array_equal(data[name].values, values)
            assert data[name].dtype == values.dtype


def test_nested_trials_do_not_touch_each_other(store, make_arrays):
    first, second, third = (make_arrays(rows, rows) for rows in (10, 20, 30))
    store.write("a/b", first, {})
    store.write("a", second, {})
    store.write("a/c/d", third, {})
    assert store.trials() == ["a", "a/b", "a/c/d"]
    store.write("a", third, {})
    assert_same(store["a"], third)
    assert_same(store["a/b"], first)
    store.remove("a")
    assert store.trials() == ["a/b", "a/c/d"]
    assert_same(store["a/c/d"], third)


def test_replaced_trial_keeps_nothing_old(store, make_arrays):
    store.write("a", make_arrays(30), {"old": 1})
    new = {"time": np.zeros(3), "mfcc": np.ones((3, 39), np.float32)}
    store.write("a", new, {"fingerprint": "n"})
    assert_same(store["a"], new)
    assert "old" not in store["a"].attributes
    assert not (store.files.root / "a" / "vggish").exists()


def test_remove(store, arrays):
    store.write("b/a", arrays, {})
    store.remove("b/a")
    store.remove("b/a")
    assert store.trials() == []
    assert not (store.files.root / "b" / "a").exists()


def test_faces_in_a_container(store, arrays):
    for number in range(3):
        store.write(f"v/face{number}", arrays, {"fingerprint": "f"})
    store.write("v", {}, {"fingerprint": "f", "rows": 40, "faces": 3})
    assert store.trials() == ["v/face0", "v/face1", "v/face2"]
    assert "v" not in store
    with pytest.raises(KeyError, match="v/face0"):
        store["v"]
    assert (store.attributes("v") or {}).get("fingerprint") == "f"
    assert store.attributes("v") == {"fingerprint": "f", "rows": 40, "faces": 3, "complete": True}
    store.remove("v")
    assert store.trials() == []


def test_clashing_names(store, arrays):
    store.write("a/time", arrays, {})
    with pytest.raises(StoreMismatch, match=r"'time'.*rename"):
        store.write("a", arrays, {})
    store.write("b", arrays, {})
    with pytest.raises(StoreMismatch, match="is an array"):
        store.write("b/time", arrays, {})
    with pytest.raises(StoreMismatch, match="is an array"):
        store.write("b/time/x", arrays, {})
    assert store.trials() == ["a/time", "b"]


WORDS = ArraySpec("float32", ("feature_vggish",), "1", "VGGish embedding of the audio")


def test_wrong_arrays(store, arrays):
    for name, values, message in (
        ("vggish", arrays["vggish"][:-1], "time 40.*vggish 39"),
        ("vggish", DescribedRows(arrays["vggish"].astype(np.float64), WORDS), "vggish holds float32"),
        ("vggish_valid", np.ones(40, np.uint8), "holds bool"),
        ("time", arrays["time"][:, None], "time has the axes"),
        ("words", np.array(["a"] * 40), "holds numbers"),
        ("a/b", arrays["vggish"], "cannot name an array"),
    ):
        with pytest.raises(ValueError, match=message):
            store.write("a", {**arrays, name: values}, {})
    assert list(store.files.root.iterdir()) == [store.files.root / "zarr.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_attributes_are_json(store, arrays, value):
    with pytest.raises(ValueError, match="JSON"):
        store.write("a", arrays, {"x": [value]})


def test_wrong_checksums_publish_nothing(store, arrays):
    with pytest.raises(StoreMismatch, match="'a' is not what its checksums say: time"):
        store.write("a", {"time": arrays["time"]}, {}, checksums={"time": "0"})
    assert store.trials() == []
    assert not (store.files.root / ".tmp").exists()


def test_read_only(store, arrays):
    reader = FeatureStore(store.path)
    with pytest.raises(ValueError, match="mode='a'"):
        reader.write("a", arrays, {})
    with pytest.raises(ValueError, match="mode='a'"):
        reader.remove("a")


def test_what_is_no_store(tmp_path):
    with pytest.raises(StoreMismatch, match=r"is not an avfuse store: there is no zarr\.json"):
        FeatureStore(tmp_path / "absent")
    with pytest.raises(ValueError, match="mode"):
        FeatureStore(tmp_path, mode="w")  # type: ignore[arg-type]  # is refused
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(StoreMismatch, match="other files"):
        FeatureStore(tmp_path, mode="a")
    zarr.create_group(tmp_path / "plain")
    for mode in ("r", "a"):
        with pytest.raises(StoreMismatch, match="has no avfuse_format"):
            FeatureStore(tmp_path / "plain", mode=mode)


def test_newer_format(tmp_path):
    zarr.create_group(tmp_path / "s", attributes={"avfuse_format": 3})
    with pytest.raises(StoreMismatch, match=r"format 3.*newer avfuse"):
        FeatureStore(tmp_path / "s")


def test_store_travels_to_workers(store, arrays):
    store.write("a", arrays, {})
    assert pickle.loads(pickle.dumps(store)).trials() == ["a"]


def test_empty_store_is_true(store):
    assert store
    assert len(store) == 0


MORE = {"mfcc": np.ones((40, 39), np.float32), "mfcc_valid": np.ones(40, np.bool_)}


def test_a_reader_is_not_disturbed_by_what_it_does_not_read(store, arrays):
    """Features are added, made anew and removed beside the array that is read."""
    store.write("a", arrays, {})
    trial = FeatureStore(store.path)["a"]
    with trial.unchanged():
        trial.window("iresnet50", 0, 20)
        store.add("a", MORE, {"mfcc": {"fingerprint": "1"}})
        store.add("a", {"vggish": arrays["vggish"] + 1, "vggish_valid": arrays["vggish_valid"]}, {"vggish": {}})
        store.remove_feature("a", "mfcc")
        assert (trial.window("iresnet50", 20, 40) == arrays["iresnet50"][20:]).all()
    assert (store["a"].read("vggish") == arrays["vggish"] + 1).all()


@pytest.mark.parametrize("happens", ["replaced", "removed"])
def test_a_reader_of_an_array_that_goes_is_refused(store, arrays, happens):
    store.write("a", {**arrays, **MORE}, {})
    trial = FeatureStore(store.path)["a"]

    def read():
        with trial.unchanged():
            trial.window("mfcc", 0, 20)
            if happens == "replaced":
                store.add("a", {**MORE, "mfcc": MORE["mfcc"] * 2}, {"mfcc": {"fingerprint": "2"}})
            else:
                store.remove_feature("a", "mfcc")
            trial.window("iresnet50", 0, 20)

    with pytest.raises(StoreMismatch, match=r"'a' was made anew.*rows of two versions are never mixed"):
        read()


def test_what_is_made_anew_is_written_as_what_is_added(store, make_arrays):
    """To the byte, so that a store whose run was killed between the two is the same as any other."""
    entries: Any = {name: {"fingerprint": "old"} for name in ("clock", "iresnet50", "vggish")}
    new: Any = {"iresnet50": {"fingerprint": "new"}}
    arrays = make_arrays(9)
    rows = {name: arrays[name] for name in ("iresnet50", "iresnet50_valid")}
    for trial in ("a", "b"):
        store.write(trial, arrays, {"features": entries})
    store.remove_feature("b", "iresnet50")
    for trial in ("a", "b"):
        store.add(trial, rows, new)
    assert store.files.read("a/zarr.json") == store.files.read("b/zarr.json")
