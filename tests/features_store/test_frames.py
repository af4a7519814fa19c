import subprocess
import sys

import numpy as np
import pytest

from avfuse.features_store.schema import StoreMismatch

xarray = pytest.importorskip("xarray")
pandas = pytest.importorskip("pandas")


@pytest.fixture
def filled(store, arrays, attributes):
    store.write("b/a", arrays, attributes)
    store.write("timeless", {"x": np.ones((3, 2), np.float32)}, {})
    return store


def test_xarray_is_what_open_zarr_gives(filled):
    found = filled.to_xarray("b/a")
    with xarray.open_zarr(filled.path, group="b/a", consolidated=False, chunks=None) as plain:
        xarray.testing.assert_identical(found, plain.load())
    assert list(found.coords) == ["time"]
    assert found["face_box"].attrs["units"] == "px"
    first_second = found["iresnet50"].isel(frame=found["time"].values < 1.0)
    assert first_second.shape == (30, 12)


def test_some_features_are_chosen(filled):
    assert set(filled.to_xarray("b/a", ["vggish"]).variables) == {"time", "vggish", "vggish_valid"}
    assert list(filled.to_pandas("b/a", ["face_score"])) == ["face_score"]
    with pytest.raises(ValueError, match=r"no feature of trial b/a is called vgish: did you mean vggish\?"):
        filled.to_xarray("b/a", ["vgish"])
    with pytest.raises(KeyError, match="no complete trial"):
        filled.to_pandas("c")


def test_pandas_has_a_row_a_frame_and_a_column_a_value(filled, arrays):
    table = filled.to_pandas("b/a")
    assert table.index.name == "time"
    assert np.array_equal(table.index, arrays["time"])
    assert len(table.columns) == 12 + 1 + 5 + 1 + 4 + 10 + 1
    assert np.array_equal(table[[f"iresnet50_{at}" for at in range(12)]], arrays["iresnet50"])
    assert np.array_equal(table["face_landmarks_3_1"], arrays["face_landmarks"][:, 3, 1])
    assert table["vggish_valid"].dtype == bool
    assert table["vggish_0"].dtype == np.float32
    assert filled.to_pandas("timeless").index.name == "frame"


def test_broken_rows_are_an_error(filled, flip):
    flip(filled.files.root / "b" / "a" / "vggish" / "c" / "0" / "0", 30)
    for read in (filled.to_xarray, filled.to_pandas):
        with pytest.raises(StoreMismatch, match=r"rows 0–40 of .*vggish are broken"):
            read("b/a")


def test_without_them_one_line_says_what_to_install(filled):
    code = (
        "import sys; sys.modules['xarray'] = sys.modules['pandas'] = None\n"
        "from avfuse.features_store.store import FeatureStore\n"
        f"store = FeatureStore({filled.path!r})\n"
        "for read in (store.to_xarray, store.to_pandas):\n"
        "    try:\n"
        "        read('b/a')\n"
        "    except ValueError as error:\n"
        "        print(str(error).partition(' (')[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "to_xarray needs xarray: pip install 'avfuse[xarray]'",
        "to_pandas needs pandas: pip install 'avfuse[pandas]'",
    ]
