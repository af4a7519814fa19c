"""Features whose weights were tuned on the very trials that are scored: which, and by what they are recognised.

    entry of a feature ─ weights ─ tuning ─ trials      those that the weights have learned from
    scored trials ∩ those                               of one subject counts as one: video5_left is video5

Names are compared without their folders, since another store may have others.
Tested by tests/features_store/records/test_leaks.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...shell.text import counted, preview
from ..schema import plain_name, subject_of


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


def leaks(tuned: Mapping[str, Mapping[str, Any]], seen: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    """{feature: those of the trials that its weights have learned from}; empty where there are none.

    `tuned`: {feature: {fingerprint: what the weights say of their tuning}}; `seen`: {trial: {feature: fingerprint}}.
    """
    found: dict[str, list[str]] = {}
    for trial, fingerprints in seen.items() if tuned else ():
        for feature, fingerprint in fingerprints.items():
            if learned_from(tuned.get(feature, {}).get(fingerprint), [trial]):
                found.setdefault(feature, []).append(trial)
    return found


def leak_line(leaking: Mapping[str, Sequence[str]], scored: str) -> str:
    """What is wrong with scores of these trials, in words; empty where nothing is. `scored`: what they are."""
    if not leaking:
        return ""
    every = list(dict.fromkeys(name for names in leaking.values() for name in names))
    they = "it was" if len(every) == 1 else "they were"
    return (
        f"{preview(leaking)} of {counted(len(every), scored)} ({preview(every)}) come from weights that {they} tuned on"
    )


def _key(trial: str) -> str:
    return subject_of(plain_name(trial)).rpartition("/")[2].lower()
