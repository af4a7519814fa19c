"""One trial to read: a mapping of lazy arrays with its attributes.

Tested by tests/features_store/test_store.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..shell.text import counted
from .arrays.shard_reader import read_into, read_rows
from .arrays.zarr_array import open_array, row_slices
from .arrays.zarr_json import read_node
from .disk.backends import Files
from .entries import entries_of
from .schema import NODE_FILE, TIME, VALID_SUFFIX, JsonValue, StoreMismatch, is_array_name

if TYPE_CHECKING:
    import zarr


# The attributes in which two makings of a trial differ, beside the checksums of the arrays that were read.
_MAKING = ("complete", "rows")


class Trial(Mapping[str, "zarr.Array[Any]"]):
    """`trial["iresnet50"]` is a lazy zarr array [T, ...]: a slice reads the chunks it needs, nothing else.

    `rows`: T, the rows of every array; `checksums`: {array: sha256 of its raw bytes} of the arrays that there are.
    """

    def __init__(self, files: Files, name: str, attributes: Mapping[str, JsonValue]) -> None:
        self.name = name
        self.attributes = dict(attributes)
        rows, checksums = attributes.get("rows"), attributes.get("checksums")
        self.rows = rows if isinstance(rows, int) else 0
        self.checksums: dict[str, JsonValue] = {}
        if isinstance(checksums, dict):
            self.checksums = {name: checksum for name, checksum in checksums.items() if is_array_name(name)}
        self._files = files
        self._opened: dict[str, zarr.Array[Any]] = {}
        self._seen: bytes | None = None  # the zarr.json that was last found to be of this making

    def __repr__(self) -> str:
        return f"<Trial {self.name!r}: {self.rows} rows of {', '.join(self)}>"

    def __getitem__(self, array: str) -> zarr.Array[Any]:
        if array not in self.checksums:
            raise KeyError(f"trial {self.name!r} has no array {array!r}, only {', '.join(self)}")
        if array not in self._opened:
            read_node(self._files, f"{self.name}/{array}")  # refused where it is not JSON of a sane size
            self._opened[array] = open_array(self._files.location(f"{self.name}/{array}"))
        return self._opened[array]

    def __contains__(self, array: object) -> bool:
        return array in self.checksums

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.checksums))

    def __len__(self) -> int:
        return len(self.checksums)

    @property
    def features(self) -> list[str]:
        """Names of the arrays that say which of their rows are real, sorted."""
        return [name for name in self if f"{name}{VALID_SUFFIX}" in self]

    @property
    def time_s(self) -> NDArray[np.float64]:
        """Presentation times of the frames, float64 [T], s. Raises KeyError where the trial has none."""
        return self.read(TIME).astype(np.float64, copy=False)

    @property
    def entries(self) -> dict[str, dict[str, Any]]:
        """What each feature was made with, and the clock and the face track: fingerprint, settings, weights."""
        return entries_of(self.attributes)

    def valid(self, feature: str) -> NDArray[np.bool_]:
        """True where a feature's row was computed from real media, bool [T]. Raises KeyError without it."""
        return self.read(f"{feature}{VALID_SUFFIX}").astype(np.bool_, copy=False)

    def read(self, array: str) -> NDArray[Any]:
        """All rows of an array. Raises KeyError without it, StoreMismatch where rows are broken or missing.

        StoreMismatch also where no memory can hold as many rows as the metadata says.
        """
        stored = self[array]
        try:
            rows = np.empty(stored.shape, stored.dtype)
        except (MemoryError, ValueError) as error:
            raise StoreMismatch(f"{stored.store_path} has the shape {stored.shape}: {error}") from error
        read_into(stored, rows)
        return rows

    def read_into(self, feature: str, out: NDArray[Any]) -> None:
        """All rows of an array into `out` [T, ...], as fast as NumPy reads a file; several threads may do so at once.

        Raises KeyError without the array, ValueError where `out` does not fit, StoreMismatch where rows are broken.
        """
        read_into(self[feature], out)

    def window(self, feature: str, start: int, stop: int) -> NDArray[Any]:
        """Rows [start, stop) of an array.

        Raises KeyError without it, ValueError where they are not all in the trial, StoreMismatch where they are broken.
        """
        if not 0 <= start <= stop <= self.rows:
            raise ValueError(f"rows [{start}, {stop}) are not in trial {self.name!r} of {counted(self.rows, 'row')}")
        return read_rows(self[feature], slice(start, stop))

    def is_whole(self, *arrays: str) -> bool:
        """Whether all rows of these arrays can be read and are what their checksums say; slice by slice."""
        try:
            for array in arrays:
                digest, stored = hashlib.sha256(), self[array]
                for rows in row_slices(self.rows, (stored.shards or stored.chunks)[0]):
                    digest.update(self.window(array, rows.start, rows.stop).tobytes())
                if digest.hexdigest() != self.checksums[array]:
                    return False
        except (KeyError, OSError, StoreMismatch):
            return False
        return True

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Rows read within are those of the trial as it was opened: never of two versions, however long ago that was.

        Features may be added meanwhile. Raises StoreMismatch naming trial and file where rows are broken or missing,
        or where the trial, or an array that was read, was removed or made anew.
        """
        try:
            yield
        except StoreMismatch as error:
            self._check_making()  # what is being replaced is not broken
            raise StoreMismatch(f"trial {self.name!r}: {error}") from error
        self._check_making()  # afterwards: a trial is marked as incomplete before anything of it is replaced

    def _check_making(self) -> None:
        key = f"{self.name}/{NODE_FILE}"
        content = self._files.read(key)
        if content is not None and content == self._seen:
            return
        now = (read_node(self._files, self.name) or {}).get("attributes", {})
        checksums = now.get("checksums")
        checksums = checksums if isinstance(checksums, dict) else {}
        others = [array for array in self._opened if checksums.get(array) != self.checksums[array]]
        if others or any(now.get(word) != self.attributes.get(word) for word in _MAKING):
            what = "was removed" if content is None else "was made anew, or is being made anew,"
            raise StoreMismatch(
                f"trial {self.name!r} {what} since it was opened ({self._files.location(key)}); "
                "rows of two versions are never mixed: start again when it is there"
            )
        self._seen = content


def fill_rows(trial: Trial, modality: str, begin: int, out: NDArray[Any]) -> NDArray[np.bool_]:
    """Put a trial's rows from `begin` on into `out` [n, D], its last one repeated beyond its end.

    Rows that are not finite become zeros; returns which, bool [n]. Raises StoreMismatch if rows are broken or
    missing.
    """
    stored = trial.rows
    if not stored:
        out[:] = 0
        return np.zeros(len(out), np.bool_)
    first, stop = min(begin, stored - 1), min(begin + len(out), stored)
    count = stop - first
    if count == stored and trial[modality].dtype == out.dtype:
        trial.read_into(modality, out[:stored])  # the fastest way
    else:
        with np.errstate(over="ignore"):  # float64 numbers beyond float32 become infinite, and are not finite below
            out[:count] = trial.window(modality, first, stop)
    out[count:] = out[count - 1]
    broken = np.zeros(len(out), np.bool_)
    if not np.isfinite(out).all():
        broken[:] = ~np.isfinite(out).reshape(len(out), -1).all(axis=1)
        out[broken] = 0
    return broken
