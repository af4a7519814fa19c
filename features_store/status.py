"""What a store holds, in numbers and in words.

Tested by tests/features_store/test_commands.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from fractions import Fraction
from typing import Any

from .failures import outstanding
from .planned import missing
from .store import FeatureStore
from .text import counted, untrained_line
from .types import JsonValue


def summarise(store: FeatureStore) -> dict[str, Any]:
    """Trials, rows, hours of media, what is missing, unfinished or failed, untrained features, fingerprints."""
    failures = outstanding(store)
    failed = {record.trial for record in failures}
    trials = {name: found for name, found in store.groups().items() if found.get("checksums")}
    return {
        "store": store.path,
        "trials": len(trials),
        "rows": sum(_rows(found) for found in trials.values()),
        "hours": sum(_hours(found) for found in trials.values()),
        "missing": sorted(set(missing(store)) - failed),
        "incomplete": store.incomplete(),
        "failed": [asdict(record) for record in failures],
        "untrained": dict(sorted(Counter(_untrained(trials.values())).items())),
        "fingerprints": dict(Counter(str(found.get("fingerprint")) for found in trials.values()).most_common()),
    }


def status_lines(summary: Mapping[str, Any]) -> list[str]:
    """A summary as text."""
    size = f"{counted(summary['trials'], 'trial')}, {counted(summary['rows'], 'row')}, {summary['hours']:.2f} h"
    lines = [f"{size} in {summary['store']}"]
    lines += [f"fingerprint {name}: {counted(count, 'trial')}" for name, count in summary["fingerprints"].items()]
    if len(summary["fingerprints"]) > 1:
        lines.append("these trials were made with different settings or weights: extract again to make them one")
    untrained = [f"{feature} of {counted(count, 'trial')}" for feature, count in summary["untrained"].items()]
    lines += [line] if (line := untrained_line(untrained)) else []
    lines += [f"missing: {name}" for name in summary["missing"]]
    lines += [f"incomplete: {name}" for name in summary["incomplete"]]
    lines += [f"failed: {each['video']} ({each['stage']}): {each['reason']}" for each in summary["failed"]]
    return lines


def untrained_features(store: FeatureStore) -> list[str]:
    """Features that come from random networks in any trial, sorted."""
    return sorted(set(_untrained(store.groups().values())))


def _rows(attributes: Mapping[str, JsonValue]) -> int:
    rows = attributes.get("rows")
    return rows if isinstance(rows, int) else 0


def _hours(attributes: Mapping[str, JsonValue]) -> float:
    """Length of a trial by its mean rate, h; 0 where the rate is not recorded."""
    try:
        rate_hz = Fraction(str(attributes.get("fps")))
    except (ValueError, ZeroDivisionError):
        return 0.0
    return float(_rows(attributes) / rate_hz / 3600) if rate_hz > 0 else 0.0


def _untrained(trials: Iterable[Mapping[str, JsonValue]]) -> list[str]:
    """The feature, once for each trial that has it from an untrained network."""
    tables = [table for found in trials if isinstance(table := found.get("weights"), dict)]
    sources = [pair for table in tables for pair in table.items()]
    return [feature for feature, source in sources if isinstance(source, dict) and _is_untrained(source)]


def _is_untrained(source: Mapping[str, JsonValue]) -> bool:
    """`untrained` is true or the seed, which may be 0."""
    told = source.get("untrained")
    return told is not None and told is not False
