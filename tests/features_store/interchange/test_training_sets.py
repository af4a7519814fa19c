"""Exports for `datasets`, webdataset and MATLAB, read back by the real libraries."""

import json
import os
import tracemalloc
from typing import Any

import h5py
import numpy as np
import pytest
from torch.utils.data import DataLoader

from avfuse.features_store.interchange.export import Choice, export_store
from avfuse.features_store.interchange.training_sets import to_webdataset
from avfuse.features_store.store import FeatureStore

datasets = pytest.importorskip("datasets", reason="an extra")
webdataset = pytest.importorskip("webdataset", reason="an extra")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three trials, one of which has a dot in its name and one no rows; features of one, two and three axes."""
    store = FeatureStore(tmp_path_factory.mktemp("made") / "features.zarr", mode="a")
    random = np.random.default_rng(0)
    for name, rows in (("b/1.5", 700), ("b", 20), ("none", 0)):
        store.write(
            name,
            {
                "time": np.arange(rows) / 29.97,
                "iresnet50": random.standard_normal((rows, 12)).astype(np.float32),
                "iresnet50_valid": random.random(rows) < 0.8,
                "logmel": random.standard_normal((rows, 6, 4)).astype(np.float16),
                "crop48": random.integers(0, 256, (rows, 8, 8, 3), np.uint8),
                "level": np.arange(rows, dtype=np.int32),
            },
            {"fps": "30000/1001", "words": "ü" * 70_000},
        )
    return store


def left(folder):
    return sorted(path.name for path in folder.iterdir())


class TestDatasets:
    def test_every_bit_is_there(self, made, tmp_path):
        assert export_store(made, "datasets", tmp_path / "out") == 3
        found = datasets.load_from_disk(str(tmp_path / "out"))
        assert len(found) == 720
        assert found.column_names[:3] == ["trial", "frame", "time"]
        column = found.features["iresnet50"]  # a List of datasets 4, a Sequence before
        assert (column.feature, column.length) == (datasets.Value("float32"), 12)
        table = found.with_format("numpy")
        for name, begin in (("b", 0), ("b/1.5", 20)):
            rows = table[begin : begin + made[name].rows]
            assert set(rows["trial"]) == {name}
            assert rows["frame"].tolist() == list(range(made[name].rows))
            times = found.with_format("arrow")[begin : begin + made[name].rows]["time"].to_numpy()
            assert np.array_equal(times, made[name].time_s)  # the format "numpy" makes float32 of them
            for array in set(made[name]) - {"time"}:
                assert np.array_equal(rows[array], made[name].read(array)), array
        attributes = json.loads((tmp_path / "out" / "attributes.json").read_text())
        assert attributes["b/1.5"] == made["b/1.5"].attributes

    def test_a_training_loop_reads_it(self, made, tmp_path):
        export_store(made, "datasets", tmp_path / "out", Choice(features=["iresnet50"]))
        found = datasets.load_from_disk(str(tmp_path / "out")).with_format("torch")
        batch = next(iter(DataLoader(found.filter(lambda row: row["trial"] == "b"), batch_size=20)))
        assert batch["iresnet50"].numpy().tobytes() == made["b"].read("iresnet50").tobytes()
        assert batch["iresnet50_valid"].tolist() == made["b"].valid("iresnet50").tolist()

    def test_twice_the_same(self, made, tmp_path):
        for name in ("a", "b"):
            export_store(made, "datasets", tmp_path / name)
        prints = [datasets.load_from_disk(str(tmp_path / name))._fingerprint for name in ("a", "b")]
        assert prints[0] == prints[1]
        assert [path.read_bytes() for path in sorted((tmp_path / "a").glob("*.arrow"))] == [
            path.read_bytes() for path in sorted((tmp_path / "b").glob("*.arrow"))
        ]


# webdataset leaves its files to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
class TestWebdataset:
    def test_every_bit_is_there(self, made, tmp_path):
        assert export_store(made, "webdataset", tmp_path / "out", Choice(sample_rows=300)) == 3
        assert left(tmp_path / "out") == ["attributes.json", "index.json", "shard-000000.tar"]
        url = str(tmp_path / "out" / "shard-000000.tar")
        samples = list(webdataset.WebDataset(url, shardshuffle=False, empty_check=False).decode())
        assert [sample["__key__"] for sample in samples] == ["b/000000", "b/1.5/000000", "b/1.5/000300", "b/1.5/000600"]
        assert samples[3]["json"] == {"trial": "b/1.5", "start": 600, "rows": 100, "of": 700}
        for array in made["b/1.5"]:
            rows = np.concatenate([sample[f"{array}.npy"] for sample in samples[1:]])
            assert rows.dtype == made["b/1.5"][array].dtype
            assert np.array_equal(rows, made["b/1.5"].read(array))

    def test_several_files_and_their_index(self, made, tmp_path):
        to_webdataset(made, [made["b"], made["b/1.5"]], tmp_path / "out", sample_rows=50, most_bytes=100_000)
        index = json.loads((tmp_path / "out" / "index.json").read_text())
        shards = sorted((tmp_path / "out").glob("*.tar"))
        assert [shard["url"] for shard in index["shardlist"]] == [path.name for path in shards]
        assert len(shards) > 2
        urls = [str(path) for path in shards]
        samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
        assert len(samples) == sum(shard["nsamples"] for shard in index["shardlist"]) == 15

    def test_twice_the_same(self, made, tmp_path):
        for name in ("a", "b"):
            export_store(made, "webdataset", tmp_path / name)
        first, again = ((tmp_path / name / "shard-000000.tar").read_bytes() for name in ("a", "b"))
        assert first == again


@pytest.mark.parametrize("to", ["datasets", "webdataset"])
class TestWhole:
    def test_what_is_there_is_replaced_only_when_asked_for(self, made, tmp_path, to):
        export_store(made, to, tmp_path / "out", Choice(["b"]))
        before = left(tmp_path / "out")
        with pytest.raises(ValueError, match="would be replaced: --overwrite does so"):
            export_store(made, to, tmp_path / "out")
        export_store(made, to, tmp_path / "out", overwrite=True)
        assert set(before) >= {"attributes.json"}
        assert len(json.loads((tmp_path / "out" / "attributes.json").read_text())) == 3
        (tmp_path / "out" / "notes.txt").write_text("mine")
        with pytest.raises(ValueError, match=r"holds other files \(notes\.txt\); name another --out"):
            export_store(made, to, tmp_path / "out", overwrite=True)
        assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
        assert left(tmp_path) == ["out"]

    def test_a_failure_leaves_what_was_there(self, made, tmp_path, to, monkeypatch):
        export_store(made, to, tmp_path / "out", Choice(["b"]))
        before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

        def broken(array, rows):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("avfuse.features_store.interchange.training_sets.read_rows", broken)
        with pytest.raises(OSError, match="No space left"):
            export_store(made, to, tmp_path / "out", overwrite=True)
        assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
        assert left(tmp_path) == ["out"]

    def test_trials_that_differ_are_refused(self, store, tmp_path, to):
        for name, width in (("a", 2), ("b", 3)):
            store.write(name, {"time": np.arange(4.0), "x": np.zeros((4, width), np.float32)}, {})
        store.write("c", {"time": np.arange(4.0)}, {})
        with pytest.raises(
            ValueError, match=r"rows of x are \[2\] of float32 in trial 'a', and \[3\] of float32 in 'b'"
        ):
            export_store(store, to, tmp_path / "out", Choice(["a", "b"]))
        with pytest.raises(ValueError, match=r"'a' and 'c' differ in what they have \(x\); --features chooses"):
            export_store(store, to, tmp_path / "out", Choice(["a", "c"]))
        assert not (tmp_path / "out").exists()

    def test_memory_does_not_grow_with_a_trial(self, store, tmp_path, to):
        peaks = []
        for name, rows in (("short", 3000), ("long", 12_000)):
            store.write(name, {"time": np.arange(rows) / 30.0, "x": np.ones((rows, 500), np.float32)}, {})
            store[name]
            tracemalloc.start()
            export_store(store, to, tmp_path / name, Choice([name]))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[1] < 1.5 * peaks[0] + (4 << 20)


class TestMatlab:
    """What MATLAB's h5read does not take, held to HDF5's own words: MATLAB itself is not tested here."""

    @pytest.fixture
    def file(self, made, tmp_path):
        assert export_store(made, "matlab", tmp_path / "f.h5") == 3
        with h5py.File(tmp_path / "f.h5") as opened:
            yield opened

    def test_every_number_is_there(self, made, file):
        for name, trial in made.items():
            for array in trial:
                data, rows = file[f"{name}/{array}"], trial.read(array)
                assert np.array_equal(data[:], rows)
                assert data.dtype == {"?": np.uint8, "e": np.float32}.get(rows.dtype.char, rows.dtype)
            assert json.loads(bytes(file[f"{name}/attributes_json"][:])) == trial.attributes
            assert file[name].attrs["rows"] == trial.rows
        assert file["b/1.5/time"].attrs["units"] == b"s"
        assert file["b/1.5/iresnet50"].attrs["axes"] == b"frame,feature_iresnet50"
        assert b"permute" in file.attrs["order"]

    def test_the_format_is_that_of_hdf5_1_8(self, file):
        assert file.id.get_create_plist().get_version()[0] == 0

    def test_no_type_that_h5read_refuses(self, file):
        kinds: list[Any] = []

        def look(name, node):
            kinds.extend(node.attrs.get_id(key).get_type() for key in node.attrs)
            if isinstance(node, h5py.Dataset):
                kinds.append(node.id.get_type())

        file.visititems(look)
        assert len(kinds) > 20
        for kind in kinds:
            assert kind.get_class() in (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING)
            assert kind.get_class() != h5py.h5t.STRING or not kind.is_variable_str()
            assert kind.get_class() != h5py.h5t.FLOAT or kind.get_size() in (4, 8)

    def test_a_failure_leaves_nothing(self, made, tmp_path, monkeypatch):
        def broken(array, rows):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("avfuse.features_store.interchange.export.read_rows", broken)
        with pytest.raises(OSError, match="No space left"):
            export_store(made, "matlab", tmp_path / "f.h5")
        assert os.listdir(tmp_path) == []
