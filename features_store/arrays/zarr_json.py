"""Groups and arrays as zarr.json describes them, read without zarr: planning asks of thousands of trials.

Tested by tests/features_store/test_store.py and test_faults.py.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ...shell.text import counted
from ..disk.backends import Files
from ..schema import NODE_FILE, JsonValue, StoreMismatch

# Ours have some 20 KB. Brackets within brackets take forty times their size in memory.
_MOST_BYTES = 4 << 20


def read_node(files: Files, key: str) -> dict[str, Any] | None:
    """The zarr.json of a group or array, None where there is none. Raises StoreMismatch if it is broken."""
    name = f"{key}/{NODE_FILE}".lstrip("/")
    content = files.read(name)
    if content is None:
        return None
    if len(content) > _MOST_BYTES:
        raise StoreMismatch(f"{files.location(name)} is not zarr metadata ({counted(len(content), 'byte')}): remove it")
    try:
        node = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise StoreMismatch(f"{files.location(name)} is broken ({error}): remove it, and extract again") from error
    if not isinstance(node, dict) or not isinstance(node.get("attributes", {}), dict):
        raise StoreMismatch(f"{files.location(name)} is not zarr metadata: remove it, and extract again")
    return node


def group_json(attributes: dict[str, JsonValue]) -> bytes:
    """The zarr.json of a group. Raises ValueError where an attribute is not JSON, or NaN or infinite."""
    node = {"attributes": attributes, "zarr_format": 3, "node_type": "group"}
    try:
        return json.dumps(node, indent=2, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"attributes must be JSON without NaN and infinity: {error}") from error


def node_type(files: Files, key: str) -> str | None:
    """`group`, `array`, None where there is nothing, or `broken`."""
    try:
        node = read_node(files, key)
    except StoreMismatch:
        return "broken"
    return None if node is None else str(node.get("node_type"))


def walk_groups(
    files: Files, key: str = "", arrays: Collection[str] = ()
) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Every group below `key` with its attributes, parents first; None where its zarr.json is broken.

    `arrays`: names directly below `key` that need not be looked at.
    """
    for name in files.folders(key):
        if name in arrays:
            continue
        inner = f"{key}/{name}".lstrip("/")
        attributes: dict[str, Any] | None = None
        try:
            node = read_node(files, inner)
        except StoreMismatch:
            pass  # yielded as None: its trials below may be whole
        else:
            if node is None or node.get("node_type") != "group":
                continue
            attributes = node.get("attributes", {})
        yield inner, attributes
        checksums = (attributes or {}).get("checksums")
        yield from walk_groups(files, inner, checksums if isinstance(checksums, dict) else ())


def is_left(files: Files, key: str, attributes: Mapping[str, Any] | None) -> bool:
    """Whether a group is a trial that was left unfinished, or its zarr.json (attributes None) is broken."""
    if attributes is None or attributes.get("complete") is False:
        return True
    return attributes.get("complete") is not True and bool(array_folders(files, key))


def array_folders(files: Files, key: str, wanted: Collection[str] = ()) -> list[str]:
    """Names of the arrays of a group; what is not a group but has a `wanted` name is the rest of one."""
    kinds = {name: node_type(files, f"{key}/{name}") for name in files.folders(key)}
    return [name for name, kind in kinds.items() if kind == "array" or (kind != "group" and name in wanted)]


def ensure_groups(files: Files, trial: str) -> None:
    """Make the groups above a trial that are missing or broken. Raises StoreMismatch where an array is in the way."""
    parts = trial.split("/")
    for depth in range(1, len(parts) + 1):
        key = "/".join(parts[:depth])
        kind = node_type(files, key)
        if kind == "array":
            raise StoreMismatch(f"{files.location(key)} is an array: no trial {trial!r} fits there; rename its video")
        if kind is None and depth < len(parts):
            files.create(f"{key}/{NODE_FILE}", group_json({}))
        elif kind == "broken" and depth < len(parts):
            files.write(f"{key}/{NODE_FILE}", group_json({}))
