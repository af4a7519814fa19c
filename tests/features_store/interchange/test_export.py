import csv
import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

from avfuse.features_store.disk.backends import LocalFiles
from avfuse.features_store.interchange.export import Choice, estimated_bytes, export_store
from avfuse.features_store.interchange.import_h5 import import_h5
from avfuse.features_store.schema import StoreMismatch
from avfuse.features_store.store import FeatureStore


@pytest.fixture
def filled(store, make_arrays, attributes):
    attributes["long"] = "x" * 100_000  # more than an HDF5 attribute holds by default
    store.write("b/1.5", make_arrays(30, 1), attributes)
    store.write("b", make_arrays(20, 2), {"fingerprint": "ü", "nested": {"a": [1, None, 0.1]}})
    store.write("v/face0", make_arrays(5), {})
    store.write("v", {}, {"fingerprint": "f", "faces": 1})
    store.write("none", {"time": np.zeros(0), "x": np.zeros((0, 4), np.float32)}, {})
    return store


def contents(store):
    return {
        name: (
            found,
            {array: values[:].tobytes() for array, values in store[name].items()} if name != "v" else {},
        )
        for name, found in store.groups().items()
    }


def test_hdf5_out_and_back_bit_for_bit(filled, tmp_path):
    assert export_store(filled, "h5", tmp_path / "out" / "f.h5") == 4
    back = FeatureStore(tmp_path / "back.zarr", mode="a")
    assert isinstance(back.files, LocalFiles)
    assert len(import_h5(tmp_path / "out" / "f.h5", back).written) == 4
    assert contents(back) == contents(filled)
    files = sorted(p.relative_to(filled.path) for p in filled.files.root.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(back.path) for p in back.files.root.rglob("*") if p.is_file())
    for name in files:
        if name.name != "zarr.json":
            assert (filled.files.root / name).read_bytes() == (back.files.root / name).read_bytes()
        else:
            assert json.loads((filled.files.root / name).read_text()) == json.loads(
                (back.files.root / name).read_text()
            )


def test_what_is_there_is_replaced_only_when_asked(filled, tmp_path, make_arrays):
    export_store(filled, "h5", tmp_path / "f.h5")
    back = FeatureStore(tmp_path / "back.zarr", mode="a")
    assert isinstance(back.files, LocalFiles)
    import_h5(tmp_path / "f.h5", back)
    times = {path: path.stat().st_mtime_ns for path in back.files.root.rglob("*")}
    again = import_h5(tmp_path / "f.h5", back)
    assert (again.written, len(again.there)) == ((), 4)
    assert {path: path.stat().st_mtime_ns for path in back.files.root.rglob("*")} == times
    back.write("b", make_arrays(7), {"fingerprint": "mine"})
    back.remove("none")
    with pytest.raises(StoreMismatch, match=r"holds 1 other trial of the same name \(b\), .*--replace does so"):
        import_h5(tmp_path / "f.h5", back)
    assert "none" not in back  # nothing was begun
    assert back["b"].rows == 7
    done = import_h5(tmp_path / "f.h5", back, replace=True)
    assert (done.replaced, sorted(done.written), len(done.there)) == (("b",), ["b", "none"], 2)
    assert contents(back) == contents(filled)


def test_hdf5_is_readable_without_us(filled, tmp_path):
    export_store(filled, "h5", tmp_path / "f.h5")
    with h5py.File(tmp_path / "f.h5") as file:
        data = file["b/1.5/iresnet50"]
        assert data.chunks == filled["b/1.5"]["iresnet50"].chunks
        assert (data[:] == filled["b/1.5"]["iresnet50"][:]).all()
        assert json.loads(data.attrs["units"]) == "1"
        assert json.loads(file["b"].attrs["nested"]) == {"a": [1, None, 0.1]}


def test_changed_hdf5_is_refused(filled, tmp_path):
    export_store(filled, "h5", tmp_path / "f.h5")
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        file["b/1.5/vggish"][3, 2] = 0
    back = FeatureStore(tmp_path / "back.zarr", mode="a")
    with pytest.raises(StoreMismatch, match=r"'b/1\.5' is not what its checksums say: vggish"):
        import_h5(tmp_path / "f.h5", back)
    assert "b/1.5" not in back


def test_what_is_no_export(store, tmp_path):
    with pytest.raises(OSError, match="no file"):
        import_h5(tmp_path / "absent.h5", store)
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(StoreMismatch, match="is not an HDF5 file"):
        import_h5(tmp_path / "text.h5", store)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(StoreMismatch, match="avfuse_format"):
        import_h5(tmp_path / "other.h5", store)
    for value, message in ((3, "not JSON"), ("3", "newer avfuse")):
        with h5py.File(tmp_path / "other.h5", "w") as file:
            file.attrs["avfuse_format"] = value
        with pytest.raises(StoreMismatch, match=message):
            import_h5(tmp_path / "other.h5", store)


def test_npy(filled, tmp_path):
    assert export_store(filled, "npy", tmp_path / "out") == 4
    for name, trial in filled.items():
        for array, values in trial.items():
            found = np.load(tmp_path / "out" / name / f"{array}.npy")
            assert found.dtype == values.dtype
            assert found.tobytes() == values[:].tobytes()
        assert json.loads((tmp_path / "out" / name / "attributes.json").read_text()) == trial.attributes


def test_parquet(filled, tmp_path):
    import pyarrow.parquet

    assert export_store(filled, "parquet", tmp_path / "out") == 4
    table = pyarrow.parquet.read_table(tmp_path / "out" / "b" / "1.5.parquet")
    trial = filled["b/1.5"]
    assert table.column_names[0] == "time"
    assert table.num_rows == 30
    assert json.loads(table.schema.metadata[b"avfuse"]) == trial.attributes
    for number in range(12):
        found = table[f"iresnet50_{number}"].to_numpy()
        assert found.tobytes() == trial["iresnet50"][:, number].tobytes()
    assert (table["face_landmarks_4_1"].to_numpy() == trial["face_landmarks"][:, 4, 1]).all()
    assert table["iresnet50_valid"].to_pylist() == trial.valid("iresnet50").tolist()
    assert pyarrow.parquet.read_table(tmp_path / "out" / "none.parquet").num_rows == 0


def test_parquet_without_pyarrow(filled, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"pip install 'avfuse\[parquet\]'"):
        export_store(filled, "parquet", tmp_path / "out")


def test_csv(filled, tmp_path, monkeypatch):
    monkeypatch.setattr("avfuse.features_store.interchange.export._SLICE_ROWS", 7)
    assert export_store(filled, "csv", tmp_path / "out") == 4
    trial = filled["b/1.5"]
    with (tmp_path / "out" / "b" / "1.5.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert next(iter(rows[0])) == "time"
    assert [float(row["time"]) for row in rows] == trial.time_s.tolist()
    assert [float(row["vggish_4"]) for row in rows] == trial["vggish"][:, 4].tolist()
    assert rows[1]["face_box_0"] == "nan"
    assert rows[0]["vggish_valid"] == "True"


def test_failed_export_leaves_nothing(filled, tmp_path, flip):
    flip(filled.files.root / "v/face0/vggish/c/0/0", 20)
    out = tmp_path / "f.h5"
    out.write_text("the old one")
    with pytest.raises(StoreMismatch, match=r"rows 0–5 of .*v/face0/vggish.*avfuse verify"):
        export_store(filled, "h5", out, overwrite=True)
    assert out.read_text() == "the old one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.h5", "features.zarr"]


def test_what_is_there_is_replaced_only_when_asked_for(filled, tmp_path):
    (tmp_path / "f.h5").write_text("the old one")
    with pytest.raises(ValueError, match=r"f\.h5 would be replaced: --overwrite"):
        export_store(filled, "h5", tmp_path / "f.h5")
    assert (tmp_path / "f.h5").read_text() == "the old one"
    export_store(filled, "h5", tmp_path / "f.h5", overwrite=True)
    assert h5py.is_hdf5(tmp_path / "f.h5")
    for to in ("csv", "npy"):
        export_store(filled, to, tmp_path / to, Choice(trials=["b"]))
        with pytest.raises(ValueError, match="would be replaced"):
            export_store(filled, to, tmp_path / to)
        assert not list((tmp_path / to).rglob("*face0*"))  # refused before anything is written


@pytest.mark.parametrize(
    ("to", "place", "message"),
    [
        ("csv", "features.zarr", "lies in the store"),
        ("npy", "features.zarr/new", "lies in the store"),
        ("h5", "features.zarr/b/f.h5", "lies in the store"),
        ("h5", "labels", "labels is a folder, and h5 is one file"),
    ],
)
def test_a_store_and_a_folder_stay_as_they_were(filled, tmp_path, to, place, message):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "clip.txt").write_text("valence,arousal\n0,0\n")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=message):
        export_store(filled, to, tmp_path / place, overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_chosen_trials_and_features(filled, tmp_path):
    choice = Choice(trials=["b", "v"], features=["vggish"])
    assert export_store(filled, "npy", tmp_path / "out", choice) == 2
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in tmp_path.rglob("out/**/*.npy"))
    arrays = ("time.npy", "vggish.npy", "vggish_valid.npy")
    assert found == [f"{trial}/{array}" for trial in ("b", "v/face0") for array in arrays]
    export_store(filled, "h5", tmp_path / "f.h5", choice)
    back = FeatureStore(tmp_path / "back.zarr", mode="a")
    assert import_h5(tmp_path / "f.h5", back).written == ("b", "v/face0")
    assert sorted(back["b"]) == ["time", "vggish", "vggish_valid"]
    assert (back["v/face0"]["vggish"][:] == filled["v/face0"]["vggish"][:]).all()
    with pytest.raises(ValueError, match=r"no trial is called b/1\.6: did you mean b/1\.5\?"):
        export_store(filled, "npy", tmp_path / "out", Choice(trials=["b/1.6"]))
    with pytest.raises(ValueError, match="is called vgish: did you mean vggish"):
        export_store(filled, "npy", tmp_path / "other", Choice(["b"], ["vgish"]))


@pytest.mark.parametrize("to", ["h5", "npy", "parquet", "csv"])
def test_the_estimate_is_about_right(store, make_arrays, tmp_path, to):
    if to == "parquet":
        pytest.importorskip("pyarrow")
    for trial in ("a", "b"):
        store.write(trial, make_arrays(2000), {})
    for choice in (Choice(), Choice(["a"], ["iresnet50"])):
        out = tmp_path / str(choice.trials)
        export_store(store, to, out, choice)
        written = sum(path.stat().st_size for path in [out, *out.rglob("*")] if path.is_file())
        assert 0.5 * written < estimated_bytes(store, to, choice) < 2 * written


def test_unknown_format(store, tmp_path):
    with pytest.raises(ValueError, match="'mat'"):
        export_store(store, "mat", tmp_path)


def test_a_name_that_is_not_utf8_is_named(store, arrays, tmp_path):
    store.write("caf\udce9", arrays, {})
    with pytest.raises(ValueError, match="rename its video"):
        export_store(store, "h5", tmp_path / "f.h5")
    assert not list(tmp_path.glob("*.h5*"))


FULL = """
import resource, signal, sys
from avfuse.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("to", "file"),
    [
        ("csv", "out/b.csv"),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in (("h5", "out"), ("npy", "out/b/face_box.npy"))),
    ],
)
def test_a_disk_that_takes_no_more_is_named(filled, tmp_path, to, file):
    words = ["export", "--store", filled.path, "--to", to, "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", FULL, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, f"Error: {tmp_path / file}: File too large")
    assert not (tmp_path / file).exists()


def test_a_file_is_not_a_folder(filled, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(ValueError, match="out is a file, and csv is a folder of files; name another --out"):
        export_store(filled, "csv", tmp_path / "out")
