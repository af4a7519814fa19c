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
from .schema import NODE_FILE, JsonValue, RowSource, StoreMismatch, layout

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
        checksums: dict[str, JsonValue] = {
            name: write_array(f"{built}/{name}", name, source) for name, source in arrays.items()
        }
        (built / NODE_FILE).write_bytes(describe(checksums))
        fsync_tree(built)
        # zarr makes folders anew that somebody removes while it writes: the trial would appear with a part of its rows.
        if not files.is_file(NODE_FILE):
            raise store_removed(files.root)
        check_fence()  # whoever took the claim over may have swept up what was built
        for name, source in arrays.items():
            shards = -(-source.shape[0] // layout(name, source.shape, source.dtype.itemsize).shard[0])
            written = sum(len(names) for _, _, names in os.walk(built / name / "c"))
            if written != shards or not (built / name / NODE_FILE).is_file():
                raise store_removed(files.root)
        ensure_groups(files, trial)
        place = files.root / trial
        check_fence()
        try:
            built.rename(place)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EXDEV):
                raise
            _exchange_arrays(files, built, trial, arrays)
        fsync_path(place.parent)


def publish_in_store(files: Files, trial: str, arrays: Mapping[str, RowSource], describe: Describe) -> None:
    """Write a trial at its name, for stores that cannot rename."""
    ensure_groups(files, trial)
    _clear(files, trial, arrays)
    checksums: dict[str, JsonValue] = {
        name: write_array(f"{files.location(trial)}/{name}", name, source) for name, source in arrays.items()
    }
    files.write(f"{trial}/{NODE_FILE}", describe(checksums))


def _exchange_arrays(files: LocalFiles, built: Path, trial: str, names: Collection[str]) -> None:
    """An old version, a folder of other trials or another disk is there: the arrays move one by one."""
    place = files.root / trial
    place.mkdir(exist_ok=True)
    _clear(files, trial, names)
    for name in names:
        check_fence()
        try:
            (built / name).rename(place / name)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            shutil.copytree(built / name, place / name)
            fsync_tree(place / name)
    fsync_path(place)
    files.write(f"{trial}/{NODE_FILE}", (built / NODE_FILE).read_bytes())


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

    Without a rename an array goes file by file, and what a kill leaves of it is not an array any more.
    """
    try:
        attributes = (read_node(files, trial) or {}).get("attributes", {})
    except StoreMismatch:  # broken: its arrays are found by their own metadata
        attributes = {}
    known = [*(attributes.get("checksums") or ()), *(attributes.get(_REMOVING) or ())]
    wanted = sorted({*names, *(name for name in known if isinstance(name, str))})
    files.write(f"{trial}/{NODE_FILE}", group_json({**mark, _REMOVING: list(wanted)}))
    for name in array_folders(files, trial, wanted):
        files.remove(f"{trial}/{name}")
