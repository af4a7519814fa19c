"""Eight processes at once on the same few trials: claimed, written, replaced, removed; never two at one trial."""

import pytest

from avfuse.features_store.records.failures import read_failures
from avfuse.features_store.records.status import read_planned
from avfuse.features_store.records.verify import verify
from avfuse.features_store.store import FeatureStore

PROCESSES = 8


@pytest.mark.slow
def test_never_two_at_one_trial(stores, tmp_path):
    root, marker = tmp_path / "s.zarr", tmp_path / "s.zarr.inside"
    marker.mkdir()
    runs = [stores.start(scenario="hammer", root=str(root)) for _ in range(PROCESSES)]
    assert [run.wait() for run in runs] == [0] * PROCESSES, [run.said("err") for run in runs]
    assert min(int(run.said("out")) for run in runs) > 0
    assert list(marker.iterdir()) == []
    store = FeatureStore(root, mode="a")
    store.sweep()
    assert list(verify(store)) == []
    assert {path.name for path in root.iterdir() if path.name.startswith(".")} == {".planned.json"}
    assert len(read_planned(store)) >= PROCESSES
    assert len((root / "failures.jsonl").read_bytes().splitlines()) == len(read_failures(store)) >= PROCESSES
