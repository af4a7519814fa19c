"""Taking a feature out of a store, trial by trial, while other runs may be at work.

Tested by tests/features_store/records/test_remove.py.
"""

from __future__ import annotations

from collections.abc import Collection

from ...shell.text import check_known, preview
from ..arrays.zarr_json import node_type
from ..claims.claims import claim
from ..entries import CLOCK, FACES, entries_of
from ..schema import StoreMismatch, whole_trial
from ..store import FeatureStore


def remove_feature(
    store: FeatureStore, feature: str, trials: Collection[str] | None = None, dry_run: bool = False
) -> list[str]:
    """Take a feature out of every trial that has it, or of those named; returns their names.

    Each trial loses it at once. Raises ValueError where no trial has it, or a named trial is not there, StoreMismatch
    where another run is processing a trial: what has been removed by then stays removed.
    """
    groups = store.groups()
    if trials is not None:
        check_known("trial", list(trials), list(groups))
    features = {name: set(entries_of(attributes)) - {CLOCK, FACES} for name, attributes in groups.items()}
    for name in groups:  # its files may be there without it: another removal was killed
        listed = groups[name].get("checksums")
        is_listed = isinstance(listed, dict) and feature in listed
        if not is_listed and node_type(store.files, f"{name}/{feature}") == "array":
            features[name].add(feature)
    having = [name for name in groups if feature in features[name]]
    if not having:
        known = sorted({each for of_trial in features.values() for each in of_trial})
        raise ValueError(f"no trial of {store.path} has the feature {feature!r}; it has {preview(known) or 'none'}")
    chosen = [name for name in having if trials is None or name in trials or whole_trial(name) in trials]
    done = []
    for name in chosen:
        if dry_run:
            done.append(name)
            continue
        owner = whole_trial(name) if whole_trial(name) in groups else name
        with claim(store.path, owner) as mine:
            if not mine:
                raise StoreMismatch(
                    f"trial {owner!r} is being processed by another run; {len(done)} of {len(chosen)} trials are done: "
                    "run this again when it has ended"
                )
            if store.remove_feature(name, feature):
                done.append(name)
    return [name for name in done if groups[name].get("checksums")]
