"""What trials were made with, settings and weights, and in what these differ: for `status` and `train`.

Tested by tests/features_store/records/test_making.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...shell.text import preview

_MOST_SHOWN = 6  # a whole other extraction differs in dozens
_HASH_SHOWN = 16


def differing_settings(trials: Iterable[Mapping[str, Any]]) -> list[str]:
    """Settings and weights that differ between trials, by their attributes: `audio_align: start (20) / center (3)`.

    Nothing where none differs, or where the trials do not say (those of an older version of avfuse).
    """
    told = []
    for name, values in _differing(trials).items():
        most_first = sorted(values.items(), key=lambda item: -len(item[1]))
        told.append(f"{name}: {' / '.join(f'{value} ({len(those)})' for value, those in most_first)}")
    return told


def unlike(one: Mapping[str, Any], other: Mapping[str, Any], of_one: str, of_other: str) -> str:
    """What differs between two makings, as `setting: value <of_one>, value <of_other>`, the first few."""
    which = (of_one, of_other)
    told = (
        f"{name}: {', '.join(f'{value} {which[those[0]]}' for value, those in values.items())}"
        for name, values in _differing((one, other)).items()
    )
    return preview(told, _MOST_SHOWN)


def _differing(makings: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, list[int]]]:
    """{setting: {value: which of the makings have it}} of those that are not the same in all."""
    spelled = [_spelled(attributes) for attributes in makings]
    found: dict[str, dict[str, list[int]]] = {name: {} for each in spelled for name in each}
    for name, values in found.items():
        for number, each in enumerate(spelled):
            values.setdefault(each.get(name, "not recorded"), []).append(number)
    return {name: values for name, values in found.items() if len(values) > 1}


def _spelled(attributes: Mapping[str, Any]) -> dict[str, str]:
    """{setting, `weights of FEATURE` or `algorithm`: its value in words} as far as a trial says."""
    settings, weights = attributes.get("settings"), attributes.get("weights")
    told = dict(settings) if isinstance(settings, dict) else {}
    if "algorithm" in attributes:
        told["algorithm"] = attributes["algorithm"]
    for feature, source in weights.items() if isinstance(weights, dict) else ():
        if isinstance(source, dict):
            identity = source.get("sha256") or f"untrained {source.get('untrained_seed')}"
            told[f"weights of {feature}"] = str(identity)[:_HASH_SHOWN]
    return {name: _in_words(value) for name, value in told.items()}


def _in_words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "default" if value is None else str(value)
