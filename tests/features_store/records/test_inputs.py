"""Where a store's last runs took it from: laid over, never forgotten, never in the way of what else is in the file."""

import json
from pathlib import Path

import pytest

from avfuse.features_store.records.inputs import Inputs, inputs_of, read_inputs, record_inputs
from avfuse.features_store.store import FeatureStore

FILE = {"path": "/w/v.pth", "sha256": "ab"}


@pytest.mark.parametrize("place", ["folder", "url"])
def test_the_last_one_given_counts_each_for_itself(tmp_path, place):
    store = FeatureStore(tmp_path / "s.zarr" if place == "folder" else "memory://inputs.zarr", mode="a")
    assert read_inputs(store.files) == Inputs()  # as in stores of before
    record_inputs(store.files, inputs_of(tmp_path / "v", Path("labels"), None, {"vggish": FILE, "iresnet50": None}))
    record_inputs(store.files, inputs_of(tmp_path / "w", None, tmp_path / "crops", {"iresnet50": FILE}))
    assert read_inputs(FeatureStore(store.path).files) == Inputs(
        str(tmp_path / "w"),
        str(Path("labels").absolute()),
        str(tmp_path / "crops"),
        {"vggish": FILE, "iresnet50": FILE},
    )


def test_the_rest_of_the_root_stays(store):
    root = store.files.root / "zarr.json"
    node = json.loads(root.read_text())
    root.write_text(json.dumps({**node, "consolidated_metadata": {"x": 1}}))
    record_inputs(store.files, Inputs(videos="/v"))
    found = json.loads(root.read_text())
    assert found["consolidated_metadata"] == {"x": 1}
    assert found["attributes"] == {**node["attributes"], "videos": "/v"}
    before = root.stat().st_mtime_ns
    record_inputs(store.files, Inputs(videos="/v"))
    assert root.stat().st_mtime_ns == before


def test_words_of_another_kind_are_not_believed(store):
    root = store.files.root / "zarr.json"
    node = json.loads(root.read_text())
    node["attributes"] |= {"videos": 7, "annotations": "/a", "weight_files": ["x"]}
    root.write_text(json.dumps(node))
    assert read_inputs(store.files) == Inputs(annotations="/a")
