"""Taking a feature out of a store: it goes, whole, and nothing else does."""

from typing import Any

import numpy as np
import pytest

from avfuse.cli import main
from avfuse.features_store.claims.claims import claim
from avfuse.features_store.records.remove import remove_feature
from avfuse.features_store.records.verify import verify
from avfuse.features_store.schema import StoreMismatch
from avfuse.features_store.store import FeatureStore

ENTRIES: Any = {name: {"fingerprint": "f"} for name in ("clock", "faces", "iresnet50", "vggish")}


@pytest.fixture(params=["folder", "url"])
def filled(request, tmp_path, make_arrays):
    store = FeatureStore(tmp_path / "s.zarr" if request.param == "folder" else "memory://remove.zarr", mode="a")
    for name in ("a", "b/c", "v/face0", "v/face1"):
        store.write(name, make_arrays(12), {"features": ENTRIES})
    store.write("v", {}, {"features": ENTRIES, "faces": 2, "rows": 12})
    yield store
    for name in ("a", "b/c", "v"):
        store.remove(name)


def test_it_goes_and_the_rest_stays(filled):
    before = {name: dict(filled[name].checksums) for name in filled}
    assert remove_feature(filled, "vggish") == ["a", "b/c", "v/face0", "v/face1"]
    for name, trial in filled.items():
        kept = {array: value for array, value in before[name].items() if array not in ("vggish", "vggish_valid")}
        assert trial.checksums == kept
        assert "vggish" not in trial.entries
        assert filled.files.read(f"{name}/vggish/zarr.json") is None
    assert "vggish" not in (filled.attributes("v") or {})["features"]
    assert filled.has_all_faces("v")
    assert list(verify(filled)) == []
    with pytest.raises(ValueError, match=r"no trial of .* has the feature 'vggish'; it has iresnet50"):
        remove_feature(filled, "vggish")


def test_of_chosen_trials_alone(filled):
    assert remove_feature(filled, "vggish", ["a"]) == ["a"]
    assert remove_feature(filled, "vggish", ["v"]) == ["v/face0", "v/face1"]
    assert "vggish" in filled["b/c"]
    assert remove_feature(filled, "vggish", ["b/c"]) == ["b/c"]
    filled.write(
        "a/faces/x", {name: np.asarray(array[:]) for name, array in filled["a"].items()}, {"features": ENTRIES}
    )
    assert remove_feature(filled, "iresnet50", ["a"]) == ["a"]  # another trial, in a folder below its name
    filled.remove("a/faces/x")
    with pytest.raises(ValueError, match="no trial is called x"):
        remove_feature(filled, "vggish", ["x"])


@pytest.mark.parametrize("name", ["time", "face_box", "clock", "faces", "vggish_valid"])
def test_what_is_no_feature_stays(filled, name):
    with pytest.raises(ValueError, match=f"has the feature '{name}'"):
        remove_feature(filled, name)


def test_a_trial_that_another_run_is_processing(tmp_path, make_arrays):
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    for name in ("a", "b"):
        store.write(name, make_arrays(5), {"features": ENTRIES})
    with claim(store.path, "b") as mine:
        assert mine
        with pytest.raises(StoreMismatch, match="'b' is being processed by another run; 1 of 2 trials are done"):
            remove_feature(store, "vggish")
    assert remove_feature(store, "vggish") == ["b"]


def test_the_command(tmp_path, make_arrays, avfuse):
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    store.write("a", make_arrays(5), {"features": ENTRIES})
    words = ("remove", "--feature", "vggish", "--store", store.path)
    assert "vggish would be taken out of 1 trial" in avfuse(*words, "--dry-run").stdout
    assert "vggish" in store["a"]
    assert "vggish taken out of 1 trial" in avfuse(*words).stdout
    assert "vggish" not in store["a"]
    assert avfuse("remove", "--feature", "x", "--store", tmp_path / "nothing").exit_code == 1
    assert not (tmp_path / "nothing").exists()
    assert np.array_equal(store["a"].read("time"), make_arrays(5)["time"])
    assert "remove" in main.list_commands(None)  # type: ignore[arg-type]  # no context is needed
