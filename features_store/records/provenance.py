"""Where a store's trials come from and what they were made with: for `status`, `verify`, `extract` and `train`.

    root group    videos, annotations, aligned    absolute paths of the folders
                  weight_files                    {feature: {"path": …, "sha256": …}}; null: found without --weights
    a trial       features                          what the rows of each depend on: ../entries.py

Those of the root are of the last run that gave them, each for itself: a run without annotations does not make the
store forget them. They are not part of any fingerprint.
Tested by tests/features_store/records/test_provenance.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...shell.text import preview
from ..arrays.zarr_json import read_node
from ..disk.backends import Files
from ..entries import source_of, weights_identity
from ..schema import NODE_FILE

_FOLDERS = ("videos", "annotations", "aligned")
_MOST_SHOWN = 6  # a whole other extraction differs in dozens
_HASH_SHOWN = 16


@dataclass(frozen=True)
class Inputs:
    """Folders and weight files of a run on its own machine; None, or absent, where they are not known."""

    videos: str | None = None
    annotations: str | None = None
    aligned: str | None = None
    weight_files: Mapping[str, Mapping[str, str] | None] = field(default_factory=dict)


def inputs_of(
    videos: Path, annotations: Path | None, aligned: Path | None, weight_files: Mapping[str, Mapping[str, str] | None]
) -> Inputs:
    """What a run was given, with paths that hold in any folder."""
    return Inputs(
        os.path.abspath(videos),
        os.path.abspath(annotations) if annotations else None,
        os.path.abspath(aligned) if aligned else None,
        weight_files,
    )


def read_inputs(files: Files) -> Inputs:
    """What the root group says; nothing is known where it does not, as in older stores."""
    attributes = (read_node(files, "") or {}).get("attributes", {})
    folders = {name: path for name in _FOLDERS if isinstance(path := attributes.get(name), str)}
    weights = attributes.get("weight_files")
    weight_files = {
        name: {key: str(value) for key, value in source.items()} if isinstance(source, dict) else None
        for name, source in (weights.items() if isinstance(weights, dict) else ())
    }
    return Inputs(**folders, weight_files=weight_files)


def record_inputs(files: Files, given: Inputs) -> None:
    """Lay what a run was given over what the root group says. Raises OSError."""
    before = read_inputs(files)
    folders = {name: path for name in _FOLDERS if (path := getattr(given, name))}
    now = Inputs(**{**asdict(before), **folders, "weight_files": {**before.weight_files, **given.weight_files}})
    node = read_node(files, "")
    if now == before or node is None:
        return
    # Whatever else is in the file, such as what zarr has consolidated, stays.
    known = {name: value for name, value in asdict(now).items() if value}
    node["attributes"] = {**node.get("attributes", {}), **known}
    files.write(NODE_FILE, json.dumps(node, indent=2).encode())


def making(entries: Mapping[str, Mapping[str, Any]], feature: str) -> dict[str, str]:
    """What a feature was made with, in words by name: settings, its own and those of what it is made from, weights.

    `entries` are those of its trial. Nothing where they do not say.
    """
    words: dict[str, str] = {}
    name: str | None = feature
    while name is not None and name in entries:
        entry = entries[name]
        settings = entry.get("settings")
        for key, value in settings.items() if isinstance(settings, dict) else ():
            listed = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            words[key] = "default" if value is None else listed
        if "revision" in entry and entry["revision"] != 1:
            words[f"revision of {name}"] = str(entry["revision"])
        if identity := weights_identity(entry.get("weights")):
            words["weights"] = identity[:_HASH_SHOWN]
        above = entry.get("made_from")
        name = source_of(above) if isinstance(above, str) else None
    return words


def lineage(entries: Mapping[str, Mapping[str, Any]], feature: str) -> dict[str, dict[str, Any]]:
    """The entries of a feature and of what it is made from, without versions: what it takes to make it again.

    `entries` are those of its trial. Empty where they do not say.
    """
    found: dict[str, dict[str, Any]] = {}
    name: str | None = feature
    while name is not None and isinstance(entries.get(name), Mapping):
        found[name] = {key: value for key, value in entries[name].items() if key not in ("versions", "encoder")}
        above = entries[name].get("made_from")
        name = source_of(above) if isinstance(above, str) else None
    return found


def differing_settings(makings: Iterable[Mapping[str, str]]) -> list[str]:
    """What differs between trials, by how a feature was made in each: `audio_align: start (20) / center (3)`.

    Nothing where none differs, or where the trials do not say.
    """
    lines = []
    for name, values in _differing(makings).items():
        most_first = sorted(values.items(), key=lambda item: -len(item[1]))
        lines.append(f"{name}: {' / '.join(f'{value} ({len(those)})' for value, those in most_first)}")
    return lines


def unlike(one: Mapping[str, str], other: Mapping[str, str], of_one: str, of_other: str) -> str:
    """What differs between two makings, as `setting: value <of_one>, value <of_other>`, the first few."""
    which = (of_one, of_other)
    differences = (
        f"{name}: {', '.join(f'{value} {which[those[0]]}' for value, those in values.items())}"
        for name, values in _differing((one, other)).items()
    )
    return preview(differences, _MOST_SHOWN)


def _differing(makings: Iterable[Mapping[str, str]]) -> dict[str, dict[str, list[int]]]:
    """{setting: {value in words: numbers of the makings that have it}} of those that are not the same in all."""
    made = list(makings)
    numbers: dict[str, dict[str, list[int]]] = {name: {} for each in made for name in each}
    for name, having in numbers.items():
        for number, each in enumerate(made):
            having.setdefault(each.get(name, "not recorded"), []).append(number)
    return {name: having for name, having in numbers.items() if len(having) > 1}
