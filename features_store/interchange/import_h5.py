"""An exported HDF5 file back into a store, bit for bit.

Tested by tests/features_store/interchange/test_export.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...shell.text import counted, preview
from ..schema import (
    FORMAT,
    FORMAT_KEY,
    ArraySpec,
    DescribedRows,
    JsonValue,
    RowSource,
    StoreMismatch,
    is_stores_own,
)
from ..store import FeatureStore


@dataclass(frozen=True)
class Imported:
    """Trials that were written, those of them that replaced others, and those that were there already, alike."""

    written: tuple[str, ...]
    replaced: tuple[str, ...]
    there: tuple[str, ...]


def import_h5(path: Path, store: FeatureStore, replace: bool = False) -> Imported:
    """Write every trial of an exported file into the store; those that it holds alike are left alone.

    A trial whose arrays differ from their checksums is not published. Raises StoreMismatch then, where the file is not
    an export of avfuse and, before anything is written, where the store holds others of the same names, unless
    `replace`; OSError where the file cannot be read.
    """
    import h5py  # noqa: PLC0415

    check_export(path)
    with h5py.File(path, "r") as file:
        groups = {name: (group, _attributes(path, group)) for name, group in _groups(file)}
        held = {name: store.attributes(name) for name in groups}
        written = [name for name, (_, attributes) in groups.items() if held[name] != attributes]
        others = [name for name in written if held[name] is not None]
        if others and not replace:
            raise StoreMismatch(
                f"{store.path} holds {counted(len(others), 'other trial')} of the same "
                f"{'name' if len(others) == 1 else 'names'} ({preview(others)}), which {path} would replace: "
                "--replace does so; or name another --store"
            )
        trials = []
        for name, (group, attributes) in groups.items():
            arrays = {key: _described(path, each) for key, each in group.items() if isinstance(each, h5py.Dataset)}
            if name in written:
                checksums = attributes.get("checksums")
                store.write(name, arrays, attributes, checksums=checksums if isinstance(checksums, dict) else None)
            if arrays:
                trials.append(name)
    return Imported(
        tuple(name for name in trials if name in written),
        tuple(name for name in trials if name in others),
        tuple(name for name in trials if name not in written),
    )


def check_export(path: Path) -> None:
    """Raise StoreMismatch where a file is not an export of avfuse, OSError where it cannot be read."""
    import h5py  # noqa: PLC0415

    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if not h5py.is_hdf5(path):
        raise StoreMismatch(f"{path} is not an HDF5 file")
    with h5py.File(path, "r") as file:
        version = _attributes(path, file).get(FORMAT_KEY)
    if not isinstance(version, int):
        raise StoreMismatch(f"{path} was not made by `avfuse export`: it has no {FORMAT_KEY}")
    if version > FORMAT:
        raise StoreMismatch(f"{path} has format {version}, this avfuse reads {FORMAT}; install a newer avfuse")


def _groups(group: Any) -> Iterator[tuple[str, Any]]:
    """Groups that were trials or held faces, children first, so that a group of faces is complete last."""
    import h5py  # noqa: PLC0415

    for member in group.values():
        if isinstance(member, h5py.Group):
            yield from _groups(member)
            if "complete" in member.attrs:
                yield member.name.lstrip("/"), member


def _described(path: Path, data: Any) -> RowSource:
    """A dataset with the words that its array had."""
    words = _attributes(path, data)
    dims, units, long_name = (words.get(name) for name in ("dimension_names", "units", "long_name"))
    if is_stores_own(data.name.rpartition("/")[2]) or not isinstance(dims, list):
        rows: RowSource = data
        return rows
    return DescribedRows(data, ArraySpec(None, tuple(map(str, dims[1:])), str(units), str(long_name)))


def _attributes(path: Path, node: Any) -> Mapping[str, JsonValue]:
    try:
        return {key: json.loads(text) for key, text in node.attrs.items()}
    except (TypeError, ValueError) as error:
        raise StoreMismatch(f"{path}: an attribute of {node.name} is not JSON text ({error})") from error
