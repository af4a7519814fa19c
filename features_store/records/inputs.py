"""Where the last run that filled a store took it from: attributes of the root group, no part of any fingerprint.

    videos, annotations, aligned    absolute paths of the folders
    weight_files                    {feature: {"path": …, "sha256": …}}; null: found without --weights

Each is the last one that was given: a run without annotations does not make the store forget them.
Tested by tests/features_store/records/test_inputs.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..arrays.zarr_json import read_node
from ..disk.backends import Files
from ..schema import NODE_FILE

_FOLDERS = ("videos", "annotations", "aligned")


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
    """What the root group says; nothing is known where it does not, as in stores of before."""
    told = (read_node(files, "") or {}).get("attributes", {})
    weights = told.get("weight_files")
    return Inputs(
        **{name: path for name in _FOLDERS if isinstance(path := told.get(name), str)},
        weight_files={name: _file(source) for name, source in weights.items()} if isinstance(weights, dict) else {},
    )


def record_inputs(files: Files, given: Inputs) -> None:
    """Lay what a run was given over what the root group says. Raises OSError."""
    before = read_inputs(files)
    folders = {name: path for name in _FOLDERS if (path := getattr(given, name))}
    now = Inputs(**{**asdict(before), **folders, "weight_files": {**before.weight_files, **given.weight_files}})
    node = read_node(files, "")
    if now == before or node is None:
        return
    told = {name: value for name, value in asdict(now).items() if value}
    # Whatever else is in the file, such as what zarr has consolidated, stays.
    node["attributes"] = {**node.get("attributes", {}), **told}
    files.write(NODE_FILE, json.dumps(node, indent=2).encode())


def _file(told: Any) -> dict[str, str] | None:
    return {key: str(value) for key, value in told.items()} if isinstance(told, dict) else None
