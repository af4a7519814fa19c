"""What is missing is what was planned and is not there."""

import numpy as np

from avfuse.features_store.records.status import (
    PLANNED_FILE,
    note_planned,
    read_planned,
    status_lines,
    summarise,
)
from avfuse.features_store.store import FeatureStore


def test_missing_is_planned_less_done(tmp_path):
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    assert summarise(store)["missing"] == []
    note_planned(store, ["b/a", "c"])
    note_planned(store, ["d"])
    store.write("c", {"time": np.arange(3.0)}, {})
    assert read_planned(store) == {"b/a", "c", "d"}
    assert summarise(store)["missing"] == ["b/a", "d"]
    assert "missing: b/a" in status_lines(summarise(store))


def test_an_unchanged_plan_writes_nothing(tmp_path):
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    note_planned(store, ["a"])
    before = (tmp_path / "s.zarr" / PLANNED_FILE).stat().st_mtime_ns
    note_planned(store, ["a"])
    assert (tmp_path / "s.zarr" / PLANNED_FILE).stat().st_mtime_ns == before


def test_a_broken_plan_counts_as_none(tmp_path):
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    for content in (b"[", b"{}", b"\xff"):
        (tmp_path / "s.zarr" / PLANNED_FILE).write_bytes(content)
        assert read_planned(store) == set()
