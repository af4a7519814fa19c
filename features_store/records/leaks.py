"""Features whose weights were tuned on the very trials that are scored: which, and by what they are recognised.

    entry of a feature ─ weights ─ tuning ─ trials      those that the weights have learned from
    scored trials ∩ those                               of one subject counts as one: video5_left is video5

Names are compared without their folders, since another store may have others.
Tested by tests/features_store/records/test_leaks.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ...shell.text import counted, preview
from ..entries import entries_of
from ..schema import plain_name, subject_of

if TYPE_CHECKING:
    from ..store import FeatureStore


def trials_of(tuning: Any) -> tuple[str, ...]:
    """The trials that weights were tuned on, by what they say; none where they were not tuned."""
    trials = tuning.get("trials") if isinstance(tuning, Mapping) else None
    return tuple(map(str, trials)) if isinstance(trials, list) else ()


def tuning_of(entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What the weights of a feature's entry say of their tuning; None where they were not tuned."""
    weights = entry.get("weights")
    tuning = weights.get("tuning") if isinstance(weights, Mapping) else None
    return tuning if isinstance(tuning, Mapping) else None


def learned_from(tuning: Any, trials: Iterable[str]) -> list[str]:
    """Those of the trials that weights were tuned on, or whose subject they were."""
    seen = {_key(name) for name in trials_of(tuning)}
    return [name for name in trials if _key(name) in seen] if seen else []


def leaks(store: FeatureStore, trials: Iterable[str], features: Iterable[str]) -> dict[str, list[str]]:
    """{feature: those of a store's trials that its weights were tuned on}; empty where there are none."""
    names = tuple(features)
    found: dict[str, list[str]] = {}
    for trial in trials:
        entries = entries_of(store.attributes(trial) or {})
        for name in names:
            if learned_from(tuning_of(entries.get(name, {})), [trial]):
                found.setdefault(name, []).append(trial)
    return found


def leak_line(leaking: Mapping[str, Iterable[str]]) -> str:
    """What is wrong with scores of these trials, in words; empty where nothing is."""
    parts = []
    for feature, names in leaking.items():
        trials = list(names)
        parts.append(f"{feature} comes from weights that were tuned on {counted(len(trials), 'of them', 'of them')}")
    every = list(dict.fromkeys(name for names in leaking.values() for name in names))
    return f"{'; '.join(parts)} ({preview(every)})" if parts else ""


def _key(trial: str) -> str:
    return subject_of(plain_name(trial)).rpartition("/")[2].lower()
