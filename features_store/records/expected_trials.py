"""Which trials the runs over a store have set out to make, so that `status` can tell what is missing.

Tested by tests/features_store/records/test_expected_trials.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

from ..disk.backends import LocalFiles
from ..disk.jsonl import locked_folder
from ..store import FeatureStore

PLANNED_FILE = ".planned.json"


def note_planned(store: FeatureStore, trials: Iterable[str]) -> None:
    """Add trials to those planned; nothing is written where all are known. Raises OSError."""
    wanted = set(trials)
    if wanted <= read_planned(store):
        return
    with _alone(store):
        planned = read_planned(store) | wanted
        store.files.write(PLANNED_FILE, json.dumps(sorted(planned), indent=0).encode())


def read_planned(store: FeatureStore) -> set[str]:
    """Trials planned so far; none where the file is missing or broken, since the next run writes it anew."""
    try:
        found = json.loads(store.files.read(PLANNED_FILE) or b"[]")
    except ValueError:
        return set()
    return {name for name in found if isinstance(name, str)} if isinstance(found, list) else set()


def missing(store: FeatureStore) -> list[str]:
    """Planned trials that the store does not have, sorted; those that failed are among them."""
    return sorted(name for name in read_planned(store) if store.attributes(name) is None)


def _alone(store: FeatureStore) -> AbstractContextManager[None]:
    """No other run reads and writes meanwhile: it would lose what this one adds. Behind a URL it may."""
    return locked_folder(store.files.root) if isinstance(store.files, LocalFiles) else nullcontext()
