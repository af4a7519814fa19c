"""What a store holds, in numbers and in words.

Tested by tests/features_store/test_commands.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...shell.text import counted, flat, one_line, text_table, untrained_line
from ..schema import FACE_SCORE, SOUND_FEATURES, TIME, VALID_SUFFIX
from ..store import FeatureStore
from ..trial import Trial
from ..types import JsonValue, StoreMismatch
from .expected_trials import missing
from .failures import outstanding
from .inputs import read_inputs
from .making import differing_settings

_WARNINGS_SHOWN = 20


def summarise(store: FeatureStore) -> dict[str, Any]:
    """Trials, rows, hours of media, what is missing, unfinished or failed, untrained features, fingerprints."""
    failures = outstanding(store)
    failed = {record.trial for record in failures}
    trials = {name: found for name, found in store.groups().items() if found.get("checksums")}
    return {
        "store": store.path,
        "inputs": asdict(read_inputs(store.files)),
        "trials": len(trials),
        "rows": sum(_rows(found) for found in trials.values()),
        "hours": sum(_hours(found) for found in trials.values()),
        "missing": sorted(set(missing(store)) - failed),
        "incomplete": store.incomplete(),
        "failed": [asdict(record) for record in failures],
        "untrained": dict(sorted(Counter(_untrained(trials.values())).items())),
        "warnings": {name: told for name, found in trials.items() if (told := warnings_of(found))},
        "differences": differing_settings(trials.values()),
        "fingerprints": dict(Counter(str(found.get("fingerprint")) for found in trials.values()).most_common()),
    }


def status_lines(summary: Mapping[str, Any], all_warnings: bool = False) -> list[str]:
    """A summary as text, with the first warnings or all."""
    size = f"{counted(summary['trials'], 'trial')}, {counted(summary['rows'], 'row')}, {summary['hours']:.2f} h"
    lines = [f"{size} in {summary['store']}"]
    folders = ((word, summary["inputs"][word]) for word in ("videos", "annotations", "aligned"))
    if known := [f"--{word} {path}" for word, path in folders if path]:
        lines.append(flat(f"extracted with {' '.join(known)}"))
    lines += [f"fingerprint {name}: {counted(count, 'trial')}" for name, count in summary["fingerprints"].items()]
    if len(summary["fingerprints"]) > 1:
        told = "; ".join(summary["differences"]) or "which one differs is not recorded"
        lines.append(f"these trials were made with different settings or weights: {told}")
        lines.append("`avfuse extract --replace` with one of them makes the others anew")
    untrained = [f"{feature} of {counted(count, 'trial')}" for feature, count in summary["untrained"].items()]
    lines += [line] if (line := untrained_line(untrained)) else []
    warned = [(name, warning) for name, told in summary["warnings"].items() for warning in told]
    shown = warned if all_warnings else warned[:_WARNINGS_SHOWN]
    lines += [flat(f"warning: {name}: {warning}") for name, warning in shown]
    if len(warned) > len(shown):
        lines.append(f"and {counted(len(warned) - len(shown), 'more warning')}: --trials shows them all")
    lines += [flat(f"missing: {name}") for name in summary["missing"]]
    lines += [flat(f"incomplete: {name}") for name in summary["incomplete"]]
    lines += [flat(f"failed: {each['video']} ({each['stage']}): {each['reason']}") for each in summary["failed"]]
    return lines


@dataclass(frozen=True)
class TrialState:
    """How a trial is: shares of its rows with a face and with real sound, the longest gaps of both, warnings.

    None where it has no such feature, or where its arrays cannot be read.
    """

    trial: str
    rows: int
    length_s: float | None
    faces: float | None
    face_gap_s: float | None
    sound: float | None
    sound_gap_s: float | None
    warnings: tuple[str, ...]


def trial_states(store: FeatureStore) -> list[TrialState]:
    """Every complete trial, by name; reads the times and flags of each."""
    return [_state(trial) for trial in store.values()]


def _state(trial: Trial) -> TrialState:
    warnings = warnings_of(trial.attributes)
    length_s = faces = face_gap_s = sound = sound_gap_s = None
    try:
        time_s = trial.time_s if TIME in trial else np.zeros(0)
        ends_s = _row_ends(time_s)
        length_s = float(ends_s[-1] - time_s[0]) if len(time_s) else None
        if FACE_SCORE in trial:
            faces, face_gap_s = _share_and_gap(trial.read(FACE_SCORE) > 0, time_s, ends_s)
        heard = next((name for name in SOUND_FEATURES if f"{name}{VALID_SUFFIX}" in trial), None)
        if heard is not None:
            sound, sound_gap_s = _share_and_gap(trial.valid(heard), time_s, ends_s)
    except (OSError, StoreMismatch) as error:
        warnings = [*warnings, f"cannot be read ({one_line(error)}): `avfuse verify` says how to fix it"]
    return TrialState(trial.name, trial.rows, length_s, faces, face_gap_s, sound, sound_gap_s, tuple(warnings))


def _row_ends(time_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """When the next frame is due, [T] s; after the last one at the mean step."""
    step_s = (time_s[-1] - time_s[0]) / (len(time_s) - 1) if len(time_s) > 1 else 0.0
    return np.append(time_s[1:], time_s[-1:] + step_s)


def _share_and_gap(
    there: NDArray[np.bool_], time_s: NDArray[np.float64], ends_s: NDArray[np.float64]
) -> tuple[float | None, float | None]:
    """Share of the rows that are there, and the longest time without any, s."""
    if not len(there) or len(there) != len(time_s):
        return None, None
    edges = np.flatnonzero(np.diff(np.concatenate([[True], there, [True]]).astype(np.int8)))
    gaps_s = ends_s[edges[1::2] - 1] - time_s[edges[::2]]
    return float(there.mean()), float(gaps_s.max(initial=0.0))


def trial_table(states: Sequence[TrialState]) -> list[str]:
    """A line a trial under a header; a dash where something is not known."""
    if not states:
        return []
    cells: list[tuple[str, ...]] = [
        ("trial", "rows", "length", "faces", "longest gap", "sound", "longest gap", "warnings")
    ]
    for state in states:
        shares = (
            _words(value, form)
            for value, form in (
                (state.length_s, "{:.1f} s"),
                (state.faces, "{:.1%}"),
                (state.face_gap_s, "{:.1f} s"),
                (state.sound, "{:.1%}"),
                (state.sound_gap_s, "{:.1f} s"),
            )
        )
        cells.append((flat(state.trial), str(state.rows), *shares, str(len(state.warnings) or "")))
    return text_table(cells)


def _words(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def warnings_of(attributes: Mapping[str, JsonValue]) -> list[str]:
    """What the run that made a trial has warned of."""
    told = attributes.get("warnings")
    return [str(warning) for warning in told] if isinstance(told, list) else []


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
