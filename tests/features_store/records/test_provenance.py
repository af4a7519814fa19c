"""Where a store's last runs took it from, laid over and never forgotten; in what trials differ."""

import json
from pathlib import Path

import pytest

from avfuse.features_store.records.provenance import (
    Inputs,
    differing_settings,
    inputs_of,
    making,
    read_inputs,
    record_inputs,
    unlike,
)
from avfuse.features_store.store import FeatureStore

FILE = {"path": "/w/v.pth", "sha256": "ab"}
TRACK = {"settings": {"face": "left", "stream": None}, "revision": 1}
ONE = making(
    {"faces": TRACK, "v": {"settings": {"list": ["a", "b"]}, "made_from": "faces", "weights": {"untrained_seed": 0}}},
    "v",
)
OTHER = making(
    {
        "faces": {**TRACK, "settings": {"face": "left", "stream": 1}},
        "v": {"settings": {"list": ["a"]}, "made_from": "faces", "weights": {"sha256": "ab" * 32}},
    },
    "v",
)


@pytest.mark.parametrize("place", ["folder", "url"])
def test_the_last_one_given_counts_each_for_itself(tmp_path, place):
    store = FeatureStore(tmp_path / "s.zarr" if place == "folder" else "memory://inputs.zarr", mode="a")
    assert read_inputs(store.files) == Inputs()  # as in older stores
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


def test_of_many_the_values_are_counted():
    assert differing_settings([ONE, ONE]) == []
    assert differing_settings([OTHER, ONE, ONE, {}]) == [
        "list: a, b (2) / a (1) / not recorded (1)",
        "weights: untrained:0 (2) / abababababababab (1) / not recorded (1)",
        "face: left (3) / not recorded (1)",
        "stream: default (2) / 1 (1) / not recorded (1)",
    ]
    newer = making({"v": {"revision": 2}}, "v")
    assert differing_settings([making({"v": {"revision": 1}}, "v"), newer]) == [
        "revision of v: not recorded (1) / 2 (1)"
    ]


def test_of_two_both_values_are_named():
    assert unlike(ONE, ONE, "now", "there") == ""
    assert unlike(ONE, OTHER, "now", "there") == (
        "list: a, b now, a there, weights: untrained:0 now, abababababababab there, stream: default now, 1 there"
    )
    many = {str(number): str(number) for number in range(9)}
    assert unlike(many, {}, "now", "there").endswith(", 5: 5 now, not recorded there and 3 more")
