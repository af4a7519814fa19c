"""How a trial appears: built aside, flushed, renamed into place; or in place, `complete` last.

    <store>/.tmp/<owner>/trial/   arrays, zarr.json with `complete`
                │ rename                              nothing there yet: the whole folder, at once
                ▼
    <store>/batch1/trial/         something there: marked incomplete, arrays exchanged, zarr.json last

Tested by tests/features_store/test_faults.py.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from .arrays import write_array
from .disk import fsync_path, fsync_tree
from .files import Files, LocalFiles
from .nodes import array_folders, ensure_groups, group_json, node_type
from .schema import NODE_FILE
from .scratch import scratch_directory
from .types import JsonValue, RowSource, StoreMismatch

INCOMPLETE: dict[str, JsonValue] = {"complete": False}
# Turns {array: sha256} into the content of the trial's zarr.json.
Describe = Callable[[dict[str, JsonValue]], bytes]


def publish_local(files: LocalFiles, trial: str, arrays: Mapping[str, RowSource], describe: Describe) -> None:
    """Build a trial in the store's scratch folder, then move it to its name."""
    with scratch_directory(files.root) as scratch:
        built = scratch / "trial"
        built.mkdir()
        checksums = _write_arrays(str(built), arrays)
        (built / NODE_FILE).write_bytes(describe(checksums))
        fsync_tree(built)
        _move(files, built, trial, arrays)


def publish_in_store(files: Files, trial: str, arrays: Mapping[str, RowSource], describe: Describe) -> None:
    """Write a trial at its name, for stores that cannot rename."""
    ensure_groups(files, trial)
    _clear(files, trial, arrays)
    checksums = _write_arrays(files.location(trial), arrays)
    files.write(f"{trial}/{NODE_FILE}", describe(checksums))


def _write_arrays(location: str, arrays: Mapping[str, RowSource]) -> dict[str, JsonValue]:
    return {name: write_array(f"{location}/{name}", name, source) for name, source in arrays.items()}


def _move(files: LocalFiles, built: Path, trial: str, names: Collection[str]) -> None:
    ensure_groups(files, trial)
    place = files.root / trial
    try:
        built.rename(place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        _move_parts(files, built, trial, names)
    fsync_path(place.parent)


def _move_parts(files: LocalFiles, built: Path, trial: str, names: Collection[str]) -> None:
    """An old version, or a folder of other trials, stands there: the arrays move one by one."""
    place = files.root / trial
    _clear(files, trial, names)
    for name in names:
        (built / name).rename(place / name)
    fsync_path(place)
    (built / NODE_FILE).replace(place / NODE_FILE)
    fsync_path(place)


def _clear(files: Files, trial: str, names: Collection[str]) -> None:
    """Mark a trial incomplete, then remove its arrays only. Raises StoreMismatch on a clash of names."""
    for name in names:
        if node_type(files, f"{trial}/{name}") == "group":
            raise StoreMismatch(
                f"trial {trial!r} cannot have the array {name!r}: "
                f"{files.location(f'{trial}/{name}')} is a trial; rename its video"
            )
    files.write(f"{trial}/{NODE_FILE}", group_json(INCOMPLETE))
    for name in array_folders(files, trial, names):
        files.remove(f"{trial}/{name}")
