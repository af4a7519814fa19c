"""How a trial appears: built aside, flushed, renamed into place; or in place, `complete` last.

    <store>/.tmp/<owner>/trial/   arrays, zarr.json with `complete`
                │ rename                              nothing there yet: the whole folder, at once
                ▼
    <store>/batch1/trial/         something there: marked incomplete, arrays exchanged, zarr.json last

Tested by tests/features_store/disk/test_faults.py and tests/faults/kills.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from .arrays.zarr_array import write_array
from .arrays.zarr_json import array_folders, ensure_groups, group_json, node_type, read_node
from .disk.atomic import check_fence, fsync_path, fsync_tree
from .disk.backends import Files, LocalFiles
from .disk.scratch import scratch_directory
from .disk.unwritable import store_removed
from .schema import NODE_FILE, layout
from .types import JsonValue, RowSource, StoreMismatch

_REMOVING = "removing"
# Turns {array: sha256} into the content of the trial's zarr.json.
Describe = Callable[[dict[str, JsonValue]], bytes]


def publish_local(files: LocalFiles, trial: str, arrays: Mapping[str, RowSource], describe: Describe) -> None:
    """Build a trial in the store's scratch folder, then move it to its name.

    Raises StoreUnwritable where the store, or what was built, has been removed meanwhile.
    """
    with scratch_directory(files.root) as scratch:
        built = scratch / "trial"
        built.mkdir()
        checksums = _write_arrays(str(built), arrays)
        (built / NODE_FILE).write_bytes(describe(checksums))
        fsync_tree(built)
        _check_still_there(files, built, arrays)
        _move(files, built, trial, arrays)


def publish_in_store(files: Files, trial: str, arrays: Mapping[str, RowSource], describe: Describe) -> None:
    """Write a trial at its name, for stores that cannot rename."""
    ensure_groups(files, trial)
    _clear(files, trial, arrays)
    checksums = _write_arrays(files.location(trial), arrays)
    files.write(f"{trial}/{NODE_FILE}", describe(checksums))


def _write_arrays(location: str, arrays: Mapping[str, RowSource]) -> dict[str, JsonValue]:
    return {name: write_array(f"{location}/{name}", name, source) for name, source in arrays.items()}


def _check_still_there(files: LocalFiles, built: Path, arrays: Mapping[str, RowSource]) -> None:
    """zarr makes folders anew that somebody removes while it writes: the trial would appear with a part of its rows."""
    if not files.is_file(NODE_FILE):
        raise store_removed(files.root)
    check_fence()  # who took the claim over may have swept up what was built
    if not all(_is_whole(built / name, name, source) for name, source in arrays.items()):
        raise store_removed(files.root)


def _is_whole(array: Path, name: str, source: RowSource) -> bool:
    shard_rows = layout(name, source.shape, source.dtype.itemsize).shard[0]
    shards = [Path(here, file) for here, _, found in os.walk(array / "c") for file in found]
    return (array / NODE_FILE).is_file() and len(shards) == -(-source.shape[0] // shard_rows)


def _move(files: LocalFiles, built: Path, trial: str, names: Collection[str]) -> None:
    ensure_groups(files, trial)
    place = files.root / trial
    check_fence()
    try:
        built.rename(place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EXDEV):
            raise
        _move_parts(files, built, trial, names)
    fsync_path(place.parent)


def _move_parts(files: LocalFiles, built: Path, trial: str, names: Collection[str]) -> None:
    """An old version, a folder of other trials or another disk is there: the arrays move one by one."""
    place = files.root / trial
    place.mkdir(exist_ok=True)
    _clear(files, trial, names)
    for name in names:
        _move_folder(built / name, place / name)
    fsync_path(place)
    files.write(f"{trial}/{NODE_FILE}", (built / NODE_FILE).read_bytes())


def _move_folder(source: Path, target: Path) -> None:
    check_fence()
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copytree(source, target)
        fsync_tree(target)


def _clear(files: Files, trial: str, names: Collection[str]) -> None:
    """Mark a trial incomplete, then remove its arrays only. Raises StoreMismatch on a clash of names."""
    for name in names:
        if node_type(files, f"{trial}/{name}") == "group":
            raise StoreMismatch(
                f"trial {trial!r} cannot have the array {name!r}: "
                f"{files.location(f'{trial}/{name}')} is a trial; rename its video"
            )
    remove_arrays(files, trial, names, {"complete": False})


def remove_arrays(files: Files, trial: str, names: Collection[str], mark: dict[str, JsonValue]) -> None:
    """Remove the arrays of a trial, whole or not; until then its zarr.json holds `mark` and what there is to remove.

    Without a rename an array goes file by file, and what a kill leaves of it is no array any more.
    """
    wanted = sorted({*names, *_known_arrays(files, trial)})
    files.write(f"{trial}/{NODE_FILE}", group_json({**mark, _REMOVING: list(wanted)}))
    for name in array_folders(files, trial, wanted):
        files.remove(f"{trial}/{name}")


def _known_arrays(files: Files, trial: str) -> list[str]:
    try:
        attributes = (read_node(files, trial) or {}).get("attributes", {})
    except StoreMismatch:  # broken: its arrays are found by their own metadata
        return []
    named = [*(attributes.get("checksums") or ()), *(attributes.get(_REMOVING) or ())]
    return [name for name in named if isinstance(name, str)]
