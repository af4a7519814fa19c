"""An exported HDF5 file back into a store, bit for bit.

Tested by tests/features_store/test_export.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .schema import FORMAT, FORMAT_KEY
from .store import FeatureStore
from .types import JsonValue, StoreMismatch


def import_h5(path: Path, store: FeatureStore) -> int:
    """Write every trial of an exported file into the store; returns their number.

    A trial whose arrays differ from their checksums is not published. Raises StoreMismatch then, and where
    the file is not an export of avfuse; OSError where it cannot be read.
    """
    import h5py  # noqa: PLC0415

    check_export(path)
    with h5py.File(path, "r") as file:
        return sum(_import_group(path, name, group, store) for name, group in _groups(file))


def check_export(path: Path) -> None:
    """Raise StoreMismatch where a file is not an export of avfuse, OSError where it cannot be read."""
    import h5py  # noqa: PLC0415

    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if not h5py.is_hdf5(path):
        raise StoreMismatch(f"{path} is no HDF5 file")
    with h5py.File(path, "r") as file:
        _check_format(path, file)


def _check_format(path: Path, file: Any) -> None:
    found = _attributes(path, file).get(FORMAT_KEY)
    if not isinstance(found, int):
        raise StoreMismatch(f"{path} was not made by `avfuse export`: it has no {FORMAT_KEY}")
    if found > FORMAT:
        raise StoreMismatch(f"{path} has format {found}, this avfuse reads {FORMAT}; install a newer avfuse")


def _groups(group: Any) -> Iterator[tuple[str, Any]]:
    """Groups that were trials or held faces, children first, so that a group of faces is complete last."""
    import h5py  # noqa: PLC0415

    for child in group.values():
        if isinstance(child, h5py.Group):
            yield from _groups(child)
            if "complete" in child.attrs:
                yield child.name.lstrip("/"), child


def _import_group(path: Path, name: str, group: Any, store: FeatureStore) -> int:
    import h5py  # noqa: PLC0415

    attributes = _attributes(path, group)
    arrays = {key: values for key, values in group.items() if isinstance(values, h5py.Dataset)}
    checksums = attributes.get("checksums")
    store.write(name, arrays, attributes, checksums=checksums if isinstance(checksums, dict) else None)
    return 0 if not arrays else 1


def _attributes(path: Path, node: Any) -> Mapping[str, JsonValue]:
    try:
        return {key: json.loads(text) for key, text in node.attrs.items()}
    except (TypeError, ValueError) as error:
        raise StoreMismatch(f"{path}: an attribute of {node.name} is not JSON text ({error})") from error
