"""How a trial appears, and how arrays are added to it: built aside, flushed, renamed into place, zarr.json last.

    <store>/.tmp/<owner>/trial/   arrays, zarr.json with `complete`
                │ rename                              nothing there yet: the whole folder, at once
                ▼
    <store>/batch1/trial/         something there: marked incomplete, arrays exchanged, zarr.json last
                                  arrays are added: those of the same names are taken off the list (`checksums`),
                                  the new ones moved in, put on the list; what is not on the list is not there

Stores that cannot rename are written in place, in the same order.

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
    """Build a trial of `arrays` [T, ...] in the store's scratch folder, then move it to its name.

    Raises StoreMismatch on a clash of names, StoreUnwritable where the store, or what was built, has been removed
    meanwhile.
    """
    with scratch_directory(files.root) as scratch:
        built = scratch / "trial"
        checksums = _build(built, arrays)
        (built / NODE_FILE).write_bytes(describe(checksums))
        _check_built(files, built, arrays)
        place = files.root / trial
        while True:
            ensure_groups(files, trial)
            check_fence()
            try:
                built.rename(place)
                break
            except FileNotFoundError:
                if not built.exists():
                    raise  # else the group above it went meanwhile: another run has removed the trial of that name
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EXDEV):
                    raise
                _exchange_arrays(files, built, trial, arrays)
                break
        fsync_path(place.parent)


def add_local(files: LocalFiles, trial: str, arrays: Mapping[str, RowSource], take_off: bytes, add: Describe) -> None:
    """Build `arrays` [T, ...] aside and move them into a trial that is there, whose other arrays stay as they are.

    `take_off`: the trial's zarr.json without those of the same names, empty where there is none of them.
    Raises StoreMismatch on a clash of names, else as `publish_local` does.
    """
    with scratch_directory(files.root) as scratch:
        built, place = scratch / "trial", files.root / trial
        checksums = _build(built, arrays)
        _check_built(files, built, arrays)
        _refuse_groups(files, trial, arrays)
        if take_off:
            check_fence()
            files.write(f"{trial}/{NODE_FILE}", take_off)
        for name in arrays:
            check_fence()
            if (place / name).exists():  # taken off the list, or left by a run that was killed
                files.remove(f"{trial}/{name}")
            _move(built / name, place / name)
        fsync_path(place)
        check_fence()
        files.write(f"{trial}/{NODE_FILE}", add(checksums))


def add_in_store(files: Files, trial: str, arrays: Mapping[str, RowSource], take_off: bytes, add: Describe) -> None:
    """As `add_local`, for stores that cannot rename: the arrays are written where they belong."""
    _refuse_groups(files, trial, arrays)
    if take_off:
        files.write(f"{trial}/{NODE_FILE}", take_off)
    checksums: dict[str, JsonValue] = {}
    for name, source in arrays.items():
        files.remove(f"{trial}/{name}")
        checksums[name] = write_array(f"{files.location(trial)}/{name}", name, source)
    files.write(f"{trial}/{NODE_FILE}", add(checksums))


def _build(built: Path, arrays: Mapping[str, RowSource]) -> dict[str, JsonValue]:
    built.mkdir()
    return {name: write_array(f"{built}/{name}", name, source) for name, source in arrays.items()}


def _check_built(files: LocalFiles, built: Path, arrays: Mapping[str, RowSource]) -> None:
    """Flush what was built. Raises StoreUnwritable where the store or a part of it was removed meanwhile."""
    fsync_tree(built)
    # zarr makes folders anew that somebody removes while it writes: the trial would appear with a part of its rows.
    if not files.is_file(NODE_FILE):
        raise store_removed(files.root)
    check_fence()  # whoever took the claim over may have swept up what was built
    for name, source in arrays.items():
        shards = -(-source.shape[0] // layout(name, source.shape, source.dtype.itemsize, source).shard[0])
        written = sum(len(names) for _, _, names in os.walk(built / name / "c"))
        if written != shards or not (built / name / NODE_FILE).is_file():
            raise store_removed(files.root)


def publish_in_store(files: Files, trial: str, arrays: Mapping[str, RowSource], describe: Describe) -> None:
    """Write a trial of `arrays` [T, ...] at its name, for stores that cannot rename.

    Raises StoreMismatch on a clash of names.
    """
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
        _move(built / name, place / name)
    fsync_path(place)
    files.write(f"{trial}/{NODE_FILE}", (built / NODE_FILE).read_bytes())


def _move(built: Path, place: Path) -> None:
    try:
        built.rename(place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copytree(built, place)
        fsync_tree(place)


def _clear(files: Files, trial: str, names: Collection[str]) -> None:
    """Mark a trial incomplete, then remove its arrays only. Raises StoreMismatch on a clash of names."""
    _refuse_groups(files, trial, names)
    remove_arrays(files, trial, names, {"complete": False})


def _refuse_groups(files: Files, trial: str, names: Collection[str]) -> None:
    for name in names:
        if node_type(files, f"{trial}/{name}") == "group":
            raise StoreMismatch(
                f"trial {trial!r} cannot have the array {name!r}: "
                f"{files.location(f'{trial}/{name}')} is a trial; rename its video"
            )


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
