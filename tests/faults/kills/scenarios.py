"""What a run does to a store as plain functions; called again, each finishes what a kill has left."""

from typing import Any

import numpy as np
from bucket import in_bucket  # beside this script
from hammer import RECORD, hammer

from avfuse.features_store.claims.claims import claim
from avfuse.features_store.records.failures import append_failure, read_failures
from avfuse.features_store.records.status import note_planned
from avfuse.features_store.store import FeatureStore, fingerprints_in


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


def grown(root: str) -> None:
    """A trial of two features, another trial below its name, and a group of two faces with the same features."""
    store = FeatureStore(root, mode="a")
    entries: dict[str, Any] = {
        "clock": {"fingerprint": "c"},
        "face": {"fingerprint": "old"},
        "voice": {"fingerprint": "old"},
    }
    rows = {**arrays(6), **feature("face", 1), **feature("voice", 2)}
    for trial in ("a", "many/face0", "many/face1"):
        store.write(trial, rows, {"features": entries})
    store.write("many", {}, {"features": entries, "faces": 2, "rows": 6})
    store.write("a/below", arrays(2), {"fingerprint": "new"})


def feature(name: str, value: float) -> dict[str, np.ndarray]:
    return {name: np.full((6, 2), value, np.float32), f"{name}_valid": np.ones(6, np.bool_)}


def grow(root: str, name: str) -> None:
    """A feature is added, or made anew, as a run does it: where it is not there with these settings."""
    store = FeatureStore(root, mode="a")
    store.sweep()
    entry: dict[str, Any] = {name: {"fingerprint": "new"}}
    for trial, parts in (("a", ["a"]), ("many", ["many/face0", "many/face1"])):
        with claim(store.path, trial) as mine:
            if not mine:
                raise AssertionError(f"{trial} is held by a run that is dead")
            made = fingerprints_in(store.attributes(trial) or {})
            if made.get(name) == "new" and store.has_all_faces(trial):
                continue
            if parts != [trial]:
                store.remove_feature(trial, name)
            for part in parts:
                store.add(part, feature(name, 7), entry)
            if parts != [trial]:
                store.add(trial, {}, entry)


def remove_feature(root: str) -> None:
    """A feature goes from all trials, the group before its faces."""
    store = FeatureStore(root, mode="a")
    store.sweep()
    for trial in ("a", "many", "many/face0", "many/face1"):
        with claim(store.path, trial.partition("/")[0]) as mine:
            if not mine:
                raise AssertionError(f"{trial} is held by a run that is dead")
            store.remove_feature(trial, "voice")


SCENARIOS = {
    "fresh": fresh,
    "old": old,
    "grown": grown,
    "add": lambda root: grow(root, "extra"),
    "replace_feature": lambda root: grow(root, "voice"),
    "remove_feature": remove_feature,
    "replace": replace,
    "remove": remove,
    "hammer": hammer,
    "fresh in a bucket": lambda root: fresh(in_bucket(root)),
    "replace in a bucket": lambda root: replace(in_bucket(root)),
    "remove in a bucket": lambda root: remove(in_bucket(root)),
    "add in a bucket": lambda root: grow(in_bucket(root), "extra"),
    "replace_feature in a bucket": lambda root: grow(in_bucket(root), "voice"),
    "remove_feature in a bucket": lambda root: remove_feature(in_bucket(root)),
}
