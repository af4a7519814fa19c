"""One of many processes that take, write, grow and remove the same few trials for some seconds, and die at it.

Who has a trial makes a file in `<root>.inside` that nobody else may have meanwhile.
"""

import os
import random
import time
from pathlib import Path

import numpy as np

from avfuse.features_store.claims.claims import claim
from avfuse.features_store.records.failures import FailureRecord, append_failure
from avfuse.features_store.records.status import note_planned
from avfuse.features_store.store import FeatureStore

TRIALS = ("a", "a/below", "b/c", "d")
SECONDS = 4
RECORD = FailureRecord("bad.mp4", "probe", "no film", "2026-01-01T00:00:00+00:00", "bad", 3, 4)


def hammer(root: str) -> None:
    """Goes on until the time is over; says how often it had a trial."""
    rng, until_s, held = random.Random(os.getpid()), time.monotonic() + SECONDS, 0
    while time.monotonic() < until_s:
        store, trial = FeatureStore(root, mode="a"), rng.choice(TRIALS)
        with claim(root, trial) as mine:
            if mine:
                work(store, trial, Path(f"{root}.inside", trial.replace("/", "_")), rng)
            held += mine
        rng.choice([tell, die])(store, trial)
        store.sweep()
    print(held)


def work(store: FeatureStore, trial: str, guard: Path, rng: random.Random) -> None:
    guard.touch(exist_ok=False)
    if trial in store and rng.random() < 0.5:
        before, value = store[trial], float(rng.randrange(100))
        if rng.random() < 0.7:
            voice = {"voice": np.full((before.rows, 2), value), "voice_valid": np.ones(before.rows, np.bool_)}
            store.add(trial, voice, {"voice": {"fingerprint": str(value)}})
            assert set(store[trial].read("voice").ravel().tolist()) == {value}
        else:
            assert store.remove_feature(trial, "voice") == ("voice" in before)
        assert store[trial].checksums["time"] == before.checksums["time"]
    elif rng.random() < 0.7:
        rows = rng.randrange(1, 9)
        store.write(trial, {"time": np.arange(rows) / 25}, {"fingerprint": "new"})
        assert store[trial].rows == rows
    else:
        store.remove(trial)
    guard.unlink()


def tell(store: FeatureStore, trial: str) -> None:
    append_failure(store, RECORD)
    note_planned(store, [f"{trial} {os.getpid()}"])


def die(store: FeatureStore, trial: str) -> None:
    """A process that ends inside a claim, or where it is refused one."""
    pid = os.fork()
    if not pid:
        claim(store.path, trial).__enter__()
        os._exit(9)
    os.waitpid(pid, 0)
