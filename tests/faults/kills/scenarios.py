"""What a run does to a store as plain functions; called again, each finishes what a kill has left."""

import numpy as np
from bucket import in_bucket  # beside this script
from hammer import RECORD, hammer

from avfuse.features_store.claims.claims import claim
from avfuse.features_store.records.failures import append_failure, read_failures
from avfuse.features_store.records.status import note_planned
from avfuse.features_store.store import FeatureStore


def arrays(rows: int) -> dict[str, np.ndarray]:
    return {"time": np.arange(rows) / 25, "x": np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)}


def do(store: FeatureStore, trial: str, rows: int, fingerprint: str) -> None:
    """As a run does one trial."""
    with claim(store.path, trial) as mine:
        if not mine:
            raise AssertionError(f"{trial} is held by a run that is dead")
        if (store.attributes(trial) or {}).get("fingerprint") != fingerprint:
            store.write(trial, arrays(rows), {"fingerprint": fingerprint})


def fresh(root: str) -> None:
    """A new store, one trial in a folder, one failure."""
    store = FeatureStore(root, mode="a")
    store.sweep()
    note_planned(store, ["b/a"])
    do(store, "b/a", 6, "new")
    if RECORD not in read_failures(store):
        append_failure(store, RECORD)


def old(root: str) -> None:
    """A trial of former settings with more arrays, another trial below its name, and a group of two faces."""
    store = FeatureStore(root, mode="a")
    store.write("a", {**arrays(9), "y": np.ones((9, 2), np.float32)}, {"fingerprint": "old"})
    store.write("a/below", arrays(2), {"fingerprint": "new"})
    for face in range(2):
        store.write(f"many/face{face}", arrays(2), {"fingerprint": "old"})
    store.write("many", {}, {"fingerprint": "old", "faces": 2, "rows": 2})


def replace(root: str) -> None:
    """Over what `old` leaves: the trial is made anew."""
    store = FeatureStore(root, mode="a")
    store.sweep()
    do(store, "a", 6, "new")


def remove(root: str) -> None:
    """From what `old` leaves: a trial and a group of faces go, what is below them stays."""
    store = FeatureStore(root, mode="a")
    store.sweep()
    store.remove("many")
    store.remove("a")


SCENARIOS = {
    "fresh": fresh,
    "old": old,
    "replace": replace,
    "remove": remove,
    "hammer": hammer,
    "fresh in a bucket": lambda root: fresh(in_bucket(root)),
    "replace in a bucket": lambda root: replace(in_bucket(root)),
    "remove in a bucket": lambda root: remove(in_bucket(root)),
}
