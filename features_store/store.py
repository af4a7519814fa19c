"""The store: a folder (or zarr URL) of trials. Open, list, read, write, remove.

    store = FeatureStore("features.zarr")
    store["batch1/10-60-1280x720"]["iresnet50"][100:200]      reads these rows only

Tested by tests/features_store/test_store.py, test_faults.py and test_url.py.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Self

from ..shell.text import counted
from .arrays.zarr_array import common_rows
from .arrays.zarr_json import array_folders, ensure_groups, group_json, is_left, node_type, read_node, walk_groups
from .claims.claims import sweep_claims
from .disk.atomic import check_link
from .disk.backends import Files, LocalFiles, open_files
from .disk.jsonl import fix_lines
from .disk.scratch import scratch_directory, sweep_scratch
from .disk.unwritable import as_store_error
from .entries import ENTRIES, FORMER, arrays_of, entries_of
from .publish import add_in_store, add_local, publish_in_store, publish_local, remove_arrays
from .schema import (
    FAILURES_FILE,
    FORMAT,
    FORMAT_KEY,
    NODE_FILE,
    TIME,
    JsonValue,
    RowSource,
    StoreMismatch,
    check_trial_name,
    whole_trial,
)
from .trial import Trial

if TYPE_CHECKING:
    import pandas
    import xarray


Mode = Literal["r", "a"]


class FeatureStore(Mapping[str, Trial]):
    """Trials by name. Mode `r` reads a store that is there, `a` also makes one and writes.

    Raises StoreMismatch where the path holds something else, or a newer format, ValueError for another mode.
    """

    def __init__(self, path: str | os.PathLike[str], mode: Mode = "r") -> None:
        if mode not in ("r", "a"):
            raise ValueError(f"mode is 'r' or 'a', got {mode!r}")
        self.path = os.fspath(path)
        self.mode: Mode = mode
        self.files: Files = open_files(path)
        if mode == "a":  # make the root group unless there is one, but not among other files
            if isinstance(self.files, LocalFiles):
                root = self.files.root
                check_link(root)
                there = [name for name in os.listdir(root) if not name.startswith(".")] if root.is_dir() else []
                if NODE_FILE not in there and there not in ([], [FAILURES_FILE]):
                    raise StoreMismatch(f"{root} holds other files and is not an avfuse store; name a new folder")
            self.files.create(NODE_FILE, group_json({FORMAT_KEY: FORMAT}))
        node = read_node(self.files, "")
        version = (node or {}).get("attributes", {}).get(FORMAT_KEY)
        location = self.files.location("")
        if not isinstance(version, int):
            reason = f"there is no {NODE_FILE}" if node is None else f"{NODE_FILE} has no {FORMAT_KEY}"
            raise StoreMismatch(f"{location} is not an avfuse store: {reason}; name the folder that `extract` made")
        if version > FORMAT:
            raise StoreMismatch(f"{location} has format {version}, this avfuse reads {FORMAT}; install a newer avfuse")
        self.format = version

    def writable(self) -> Self:
        """The same store in mode `a`, without another look at what is on the disk."""
        same = copy(self)
        same.mode = "a"
        return same

    def __repr__(self) -> str:
        return f"FeatureStore({self.path!r}, mode={self.mode!r})"

    def __getitem__(self, trial: str) -> Trial:
        attributes = self.attributes(trial)
        if attributes is None:
            raise KeyError(f"{self.path} has no complete trial {trial!r}")
        if _is_container(attributes):
            raise KeyError(f"{trial!r} holds a trial for each face: {trial}/face0 …")
        return Trial(self.files, trial, attributes)

    def __contains__(self, trial: object) -> bool:
        attributes = self.attributes(trial) if isinstance(trial, str) else None
        return attributes is not None and not _is_container(attributes)

    def __iter__(self) -> Iterator[str]:
        return iter(self.trials())

    def __len__(self) -> int:
        return len(self.trials())

    def __bool__(self) -> bool:
        return True  # a store without trials is a store

    def trials(self) -> list[str]:
        """Names of the complete trials, sorted; groups that only hold faces are not among them."""
        return [name for name, attributes in self.groups().items() if not _is_container(attributes)]

    def groups(self) -> dict[str, dict[str, JsonValue]]:
        """Attributes of every complete trial and of every group of faces, sorted by name."""
        found = {name: a for name, a in walk_groups(self.files) if a and a.get("complete") is True}
        return dict(sorted(found.items()))

    def incomplete(self) -> list[str]:
        """Names of the trials that a run did not finish, or whose zarr.json is broken, sorted."""
        return sorted(name for name, attributes in walk_groups(self.files) if is_left(self.files, name, attributes))

    def attributes(self, trial: str) -> dict[str, JsonValue] | None:
        """Attributes of a trial, from one small file; None where it is absent, incomplete or unreadable."""
        try:
            check_trial_name(trial)
            node = read_node(self.files, trial)
        except ValueError:  # not a name that a trial can have, or broken metadata, which `verify` names
            return None
        attributes: dict[str, JsonValue] = {} if node is None else node.get("attributes", {})
        return attributes if attributes.get("complete") is True else None

    def has_all_faces(self, trial: str) -> bool:
        """Whether each face that a container counts is there, with all features that it names; true of other trials."""
        attributes = self.attributes(trial) or {}
        faces = attributes.get("faces")
        wanted = fingerprints_in(attributes).items()
        made = (self.attributes(f"{trial}/face{face}") for face in range(faces if isinstance(faces, int) else 0))
        return all(each is not None and wanted <= fingerprints_in(each).items() for each in made)

    def write(
        self,
        trial: str,
        arrays: Mapping[str, RowSource],
        attributes: Mapping[str, JsonValue],
        *,
        checksums: Mapping[str, JsonValue] | None = None,
    ) -> None:
        """Write a trial whole, or replace it: arrays [T, ...] by name, and what there is to say about them.

        `rows`, `checksums` and `complete` are added. Without arrays the group is a container (of `faces`).
        With `checksums` ({array: sha256}) nothing is published unless the arrays have them.
        Raises ValueError on a name, type, length or attribute that does not fit, StoreMismatch on a clash,
        StoreUnwritable (an OSError) where the disk is full, missing or locked.
        """
        self._check_writable()
        check_trial_name(trial)
        rows = common_rows(arrays)
        group_json(dict(attributes))  # refused before hours of writing, not after

        def describe(found: dict[str, JsonValue]) -> bytes:
            if checksums is not None and dict(checksums) != found:
                wrong = sorted(n for n in {*checksums, *found} if checksums.get(n) != found.get(n))
                raise StoreMismatch(f"trial {trial!r} is not what its checksums say: {', '.join(wrong)}")
            stored = {name: value for name, value in attributes.items() if name != "complete"}
            if found:  # the store's own words win
                stored |= {"rows": rows, "checksums": found}
            if TIME in found:
                stored["coordinates"] = TIME  # by this xarray knows the time axis
            return group_json({**stored, "complete": True})

        with as_store_error(self.files.location(trial)):
            self._upgrade()
            if isinstance(self.files, LocalFiles):
                publish_local(self.files, trial, arrays, describe)
            else:
                publish_in_store(self.files, trial, arrays, describe)

    def add(
        self,
        trial: str,
        arrays: Mapping[str, RowSource],
        features: Mapping[str, JsonValue],
        attributes: Mapping[str, JsonValue] = MappingProxyType({}),
    ) -> None:
        """Add arrays [T, ...] to a trial that is there: its other arrays keep their files.

        Arrays that are there under these names are replaced; a kill leaves each feature whole or absent. `features`:
        the entries of what was added (entries.py), `attributes`: what else there is to say now.
        Raises ValueError on a name, type or length that does not fit, StoreMismatch where the trial is not there or
        on a clash of names, StoreUnwritable where the disk is full, missing or locked.
        """
        self._check_writable()
        there = self.attributes(trial)
        if there is None:
            raise StoreMismatch(f"{self.path} has no complete trial {trial!r} to add to; extract it first")
        if arrays and there.get("checksums") and common_rows(arrays) != there.get("rows"):
            raise ValueError(
                f"trial {trial!r} has {counted(int(str(there.get('rows'))), 'row')}, got {common_rows(arrays)}"
            )
        stored = {**_as_format_2(there), **attributes}

        def listed(checksums: dict[str, JsonValue], entries: dict[str, JsonValue]) -> bytes:
            arrays_there: dict[str, JsonValue] = {"checksums": checksums} if checksums else {}  # none: a group of faces
            return group_json({**stored, **arrays_there, ENTRIES: entries, "complete": True})

        # What is added stands last, as where it was taken off before a run was killed: the same bytes either way.
        def with_added(found: dict[str, JsonValue]) -> bytes:
            return listed({**kept, **found}, {**kept_entries, **features})

        kept = {name: checksum for name, checksum in _checksums(there).items() if name not in arrays}
        kept_entries = {name: entry for name, entry in _entries(stored).items() if name not in features}
        take_off = listed(kept, kept_entries) if len(kept) < len(_checksums(there)) else b""
        with_added({})  # refused before hours of writing, not after
        with as_store_error(self.files.location(trial)):
            self._upgrade()
            if not arrays:
                self.files.write(f"{trial}/{NODE_FILE}", with_added({}))
            elif isinstance(self.files, LocalFiles):
                add_local(self.files, trial, arrays, take_off, with_added)
            else:
                add_in_store(self.files, trial, arrays, take_off, with_added)

    def remove_feature(self, trial: str, feature: str) -> bool:
        """Take a feature out of a trial, or out of a group of faces; returns whether anything of it was there.

        It goes from the trial's list first, then its files; what a kill has left of them goes too. Raises
        StoreUnwritable.
        """
        self._check_writable()
        attributes = self.attributes(trial)
        if attributes is None:
            return False
        entries = {name: entry for name, entry in _entries(_as_format_2(attributes)).items() if name != feature}
        checksums = _checksums(attributes)
        own = arrays_of(feature)
        kept = {name: value for name, value in checksums.items() if name not in own}
        is_listed = len(kept) < len(checksums) or feature in entries_of(attributes)
        left = [name for name in array_folders(self.files, trial, own) if name in own]
        with as_store_error(self.files.location(trial)):
            if is_listed:
                self._upgrade()
                now: dict[str, JsonValue] = {**_as_format_2(attributes), ENTRIES: entries}
                now |= {"checksums": kept} if checksums else {}
                self.files.write(f"{trial}/{NODE_FILE}", group_json(now))
            for name in left:
                self.files.remove(f"{trial}/{name}")
        return is_listed or bool(left)

    def _upgrade(self) -> None:
        """Make a store of format 1 one of format 2, whose trials say of each feature what it was made with."""
        if self.format < FORMAT and (node := read_node(self.files, "")) is not None:
            node["attributes"] = {**node.get("attributes", {}), FORMAT_KEY: FORMAT}
            self.files.write(NODE_FILE, json.dumps(node, indent=2).encode())
            self.format = FORMAT

    def remove(self, trial: str) -> None:
        """Remove a trial with its faces (`<trial>/face0` …); other trials below its name stay."""
        self._check_writable()
        check_trial_name(trial)
        kind = node_type(self.files, trial)
        with as_store_error(self.files.location(trial)):
            if kind is None:
                self.files.remove_folder(trial)  # empty, as a kill between the last two steps leaves it
            if kind in (None, "array"):
                return
            remove_arrays(self.files, trial, (), {})
            for below in [f"{trial}/{name}" for name in self.files.folders(trial)]:
                if whole_trial(below) == trial:
                    self.remove(below)
            if self.files.folders(trial):
                self.files.write(f"{trial}/{NODE_FILE}", group_json({}))
                return
            self.files.remove(f"{trial}/{NODE_FILE}")
            if not self.files.remove_folder(trial):  # another run has just put a trial below it
                self.files.create(f"{trial}/{NODE_FILE}", group_json({}))

    def to_xarray(self, trial: str, features: Sequence[str] | None = None) -> xarray.Dataset:
        """A trial as an xarray.Dataset in memory; see `frames.to_xarray`. Raises KeyError without the trial."""
        from .frames import to_xarray  # noqa: PLC0415

        return to_xarray(self[trial], features)

    def to_pandas(self, trial: str, features: Sequence[str] | None = None) -> pandas.DataFrame:
        """A trial as a pandas.DataFrame, one row per frame: `frames.to_pandas`. Raises KeyError without the trial."""
        from .frames import to_pandas  # noqa: PLC0415

        return to_pandas(self[trial], features)

    def repair_groups(self, trials: Iterable[str]) -> None:
        """Make the groups above these trials that are missing or broken: without them no list shows the trials."""
        for folder in {trial.rpartition("/")[0] for trial in trials if "/" in trial}:
            ensure_groups(self.files, f"{folder}/any")

    @contextmanager
    def temporary_directory(self) -> Iterator[Path]:
        """A scratch folder on the store's own disk (the system's for a URL), removed at exit."""
        if isinstance(self.files, LocalFiles):
            with scratch_directory(self.files.root) as folder:
                yield folder
        else:
            with tempfile.TemporaryDirectory(prefix="avfuse-") as name:
                yield Path(name)

    def sweep(self) -> list[str]:
        """Remove what dead runs have left: scratch, claims, half a line; returns the names of the scratch."""
        if not isinstance(self.files, LocalFiles):
            return []
        sweep_claims(self.files.root)
        fix_lines(self.files.root / FAILURES_FILE)
        return sweep_scratch(self.files.root)

    def _check_writable(self) -> None:
        if self.mode != "a":
            raise ValueError(f"{self.path} is open for reading; open it with mode='a' to write")


def fingerprints_in(attributes: Mapping[str, JsonValue]) -> dict[str, object]:
    """{feature: fingerprint} of a trial or a group of faces, with those of the clock and the face track."""
    return {name: entry.get("fingerprint") for name, entry in entries_of(attributes).items()}


def _as_format_2(attributes: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """A trial's attributes with an entry for each feature, in place of what format 1 said of all of them."""
    former = FORMER if isinstance(attributes.get("settings"), dict) else ()
    return {**{name: value for name, value in attributes.items() if name not in former}, ENTRIES: _entries(attributes)}


def _entries(attributes: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: dict(entry) for name, entry in entries_of(attributes).items()}


def _checksums(attributes: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    checksums = attributes.get("checksums")
    return dict(checksums) if isinstance(checksums, dict) else {}


def _is_container(attributes: Mapping[str, JsonValue]) -> bool:
    return "faces" in attributes and not attributes.get("checksums")
