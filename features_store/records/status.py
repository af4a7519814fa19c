"""What a store holds, and what the runs over it have set out to make, in numbers and in words.

Tested by tests/features_store/records/test_status.py and test_commands.py.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...shell.text import counted, flat, one_line, preview, text_table, untrained_line
from ..disk.backends import LocalFiles
from ..disk.jsonl import locked
from ..entries import AUDIO, CLOCK, FACES, entries_of
from ..schema import FACE_SCORE, TIME, JsonValue, StoreMismatch
from ..store import FeatureStore
from .failures import outstanding
from .provenance import differing_settings, making, read_inputs

PLANNED_FILE = ".planned.json"
_WARNINGS_SHOWN = 20


def note_planned(store: FeatureStore, trials: Iterable[str]) -> None:
    """Add trials to those planned; nothing is written where all are known. Raises OSError."""
    wanted = set(trials)
    if wanted <= read_planned(store):
        return
    # No other run reads and writes meanwhile: it would lose what this one adds. Behind a URL it may.
    with locked(store.files.root) if isinstance(store.files, LocalFiles) else nullcontext():
        planned = read_planned(store) | wanted
        store.files.write(PLANNED_FILE, json.dumps(sorted(planned), indent=0).encode())


def read_planned(store: FeatureStore) -> set[str]:
    """Trials planned so far; none where the file is missing or broken, since the next run writes it anew."""
    try:
        names = json.loads(store.files.read(PLANNED_FILE) or b"[]")
    except ValueError:
        return set()
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()


def summarise(store: FeatureStore) -> dict[str, Any]:
    """Trials, rows, hours of media, what is missing, unfinished or failed, untrained features, fingerprints."""
    failures = outstanding(store)
    failed = {record.trial for record in failures}
    trials = {name: attributes for name, attributes in store.groups().items() if attributes.get("checksums")}
    total_rows, hours = 0, 0.0
    for attributes in trials.values():
        rows = attributes.get("rows")
        rows = rows if isinstance(rows, int) else 0
        total_rows += rows
        try:
            rate_hz = Fraction(str(attributes.get("fps")))
        except (ValueError, ZeroDivisionError):
            continue  # not recorded
        hours += float(rows / rate_hz / 3600) if rate_hz > 0 else 0.0
    warned = {name: warnings_of(attributes) for name, attributes in trials.items()}
    return {
        "store": store.path,
        "inputs": asdict(read_inputs(store.files)),
        "trials": len(trials),
        "rows": total_rows,
        "hours": hours,
        "missing": sorted(name for name in read_planned(store) - failed if store.attributes(name) is None),
        "incomplete": store.incomplete(),
        "failed": [asdict(record) for record in failures],
        "untrained": dict(sorted(Counter(_untrained(trials.values())).items())),
        "warnings": {name: warnings for name, warnings in warned.items() if warnings},
        "features": by_feature({name: entries_of(attributes) for name, attributes in trials.items()}),
    }


def by_feature(entries: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Of each feature the trials by fingerprint (`made`: the most frequent first), those without it, what differs.

    `entries`: of every trial, those of its features.
    """
    names = sorted({name for of_trial in entries.values() for name in of_trial} - {CLOCK, FACES})
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        having = {trial: of_trial for trial, of_trial in entries.items() if name in of_trial}
        by_fingerprint: dict[str, list[str]] = {}
        for trial, of_trial in sorted(having.items()):
            by_fingerprint.setdefault(str(of_trial[name].get("fingerprint")), []).append(trial)
        made = dict(sorted(by_fingerprint.items(), key=lambda item: -len(item[1])))
        several = len(made) > 1
        found[name] = {
            "trials": len(having),
            "made": made,
            "missing": sorted(set(entries) - set(having)),
            "differences": differing_settings(making(each, name) for each in having.values()) if several else [],
        }
    return found


def status_lines(summary: Mapping[str, Any], all_warnings: bool = False) -> list[str]:
    """A summary as text, with the first warnings or all."""
    hours = summary["hours"]
    length = f"{hours:.2f} h" if hours >= 0.1 else f"{60 * hours:.1f} min"
    size = f"{counted(summary['trials'], 'trial')}, {counted(summary['rows'], 'row')}, {length}"
    lines = [f"{size} in {summary['store']}"]
    folders = ((word, summary["inputs"][word]) for word in ("videos", "annotations", "aligned"))
    if known := [f"--{word} {path}" for word, path in folders if path]:
        lines.append(flat(f"extracted with {' '.join(known)}"))
    for name, feature in summary["features"].items():
        parts = [f"{feature['trials']} of {counted(summary['trials'], 'trial')}"]
        if len(feature["made"]) > 1:
            differences = "; ".join(feature["differences"]) or "which ones differ is not recorded"
            parts.append(f"made with different settings or weights: {differences}")
        if feature["missing"]:
            parts.append(f"missing in {preview(feature['missing'])}")
        lines.append(flat(f"{name}: {'; '.join(parts)}"))
    if any(len(feature["made"]) > 1 for feature in summary["features"].values()):
        lines.append("`avfuse extract --features NAME --replace` with one of the settings makes the others anew")
    untrained = [f"{feature} of {counted(count, 'trial')}" for feature, count in summary["untrained"].items()]
    lines += [line] if (line := untrained_line(untrained)) else []
    warned = [(name, warning) for name, warnings in summary["warnings"].items() for warning in warnings]
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
    """How a trial is: shares of its rows with `faces` and with real `sound`, the longest gaps of both, warnings.

    Numbers are None where it has no such feature, or where its arrays cannot be read. `features`: whether each is
    `done`, made with `other settings`, or `missing`.
    """

    trial: str
    rows: int
    length_s: float | None
    faces: float | None
    face_gap_s: float | None
    sound: float | None
    sound_gap_s: float | None
    warnings: tuple[str, ...]
    features: Mapping[str, str]


def trial_states(store: FeatureStore, features: Mapping[str, Mapping[str, Any]]) -> list[TrialState]:
    """Every complete trial, by name; reads the times and flags of each.

    `features`: as `summarise` gives them. Each is `done` in a trial, made with `other settings` than in most trials,
    or `missing`.
    """
    states = []
    for trial in store.values():
        warnings, entries = warnings_of(trial.attributes), trial.entries
        length_s = faces = face_gap_s = sound = sound_gap_s = None
        try:
            time_s = trial.time_s if TIME in trial else np.zeros(0)
            step_s = (time_s[-1] - time_s[0]) / (len(time_s) - 1) if len(time_s) > 1 else 0.0
            ends_s = np.append(time_s[1:], time_s[-1:] + step_s)  # when the next frame is due
            length_s = float(ends_s[-1] - time_s[0]) if len(time_s) else None
            if FACE_SCORE in trial:
                faces, face_gap_s = _share_and_gap(trial.read(FACE_SCORE) > 0, time_s, ends_s)
            sounds = (name for name, entry in entries.items() if entry.get("made_from") == AUDIO)
            of_sound = max(sounds, default=None)  # any: vggish, where there is one
            if of_sound is not None:
                sound, sound_gap_s = _share_and_gap(trial.valid(of_sound), time_s, ends_s)
        except (OSError, StoreMismatch) as error:
            warnings = [*warnings, f"cannot be read ({one_line(error)}): `avfuse verify` says how to fix it"]
        shares = (length_s, faces, face_gap_s, sound, sound_gap_s)
        words = {}
        for name, feature in features.items():
            usual = next(iter(feature["made"]))
            made = str(entries[name].get("fingerprint")) if name in entries else None
            words[name] = "missing" if made is None else "done" if made == usual else "other settings"
        states.append(TrialState(trial.name, trial.rows, *shares, tuple(warnings), words))
    return states


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
    """One line per trial under a header; a dash where something is not known."""
    if not states:
        return []
    cells: list[tuple[str, ...]] = [
        ("trial", "rows", "length", "faces", "longest gap", "sound", "longest gap", "warnings", *states[0].features)
    ]
    for state in states:
        values = (state.length_s, state.faces, state.face_gap_s, state.sound, state.sound_gap_s)
        forms = ("{:.1f} s", "{:.1%}", "{:.1f} s", "{:.1%}", "{:.1f} s")
        shown = ("-" if value is None else form.format(value) for value, form in zip(values, forms, strict=True))
        cells.append(
            (flat(state.trial), str(state.rows), *shown, str(len(state.warnings) or ""), *state.features.values())
        )
    return text_table(cells)


def warnings_of(attributes: Mapping[str, JsonValue]) -> list[str]:
    """What the run that made a trial has warned of."""
    warnings = attributes.get("warnings")
    return [str(warning) for warning in warnings] if isinstance(warnings, list) else []


def untrained_features(store: FeatureStore) -> list[str]:
    """Features that come from random networks in any trial, sorted."""
    return sorted(set(_untrained(store.groups().values())))


def _untrained(trials: Iterable[Mapping[str, JsonValue]]) -> list[str]:
    """The feature, once for each trial that has it from an untrained network."""
    features = []
    for attributes in trials:
        for feature, entry in entries_of(attributes).items():
            source = entry.get("weights")
            untrained = source.get("untrained") if isinstance(source, dict) else None
            if untrained is not None and untrained is not False:  # true, or the seed, which may be 0
                features.append(feature)
    return features
