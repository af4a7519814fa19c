"""A store in other formats, slice by slice: HDF5, NumPy files, Parquet, CSV, and those of training_sets.py.

    h5          one file           /<trial>/<array>, every attribute as JSON text: nothing is lost
    matlab      one file           HDF5 too, as MATLAB's h5read takes it: no booleans, no strings of varying length
    npy         a folder           <trial>/<array>.npy, <trial>/attributes.json
    parquet     a folder           <trial>.parquet, one column per value: iresnet50_0, iresnet50_1 …
    csv         a folder           <trial>.csv, the same columns, floats to the last bit
    datasets    a whole folder     Arrow files for Hugging Face's `load_from_disk`, one row per frame
    webdataset  a whole folder     tar files, a sample a stretch of a trial

Tested by tests/features_store/interchange/test_export.py.
"""

from __future__ import annotations

import csv
import errno
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ... import __version__
from ...shell.text import check_known, preview
from ..arrays.shard_reader import read_rows
from ..arrays.zarr_array import dims_of, row_slices
from ..disk.atomic import whole_file
from ..schema import FORMAT, FORMAT_KEY, TIME, VALID_SUFFIX, whole_trial
from ..store import FeatureStore
from ..trial import Trial
from .result_files import check_place
from .training_sets import OWN_FILES, SAMPLE_ROWS, to_datasets, to_webdataset

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


_SLICE_ROWS = 1024
# A float32 as Python writes it, exact as a float64, with its comma; True or False.
_CSV_BYTES = {"f": 20, "b": 6}


@dataclass(frozen=True)
class Choice:
    """What is exported of a store: these trials and features; None: all of them.

    `sample_rows`: of webdataset, how many rows of a trial make a sample.
    """

    trials: Sequence[str] | None = None
    features: Sequence[str] | None = None
    sample_rows: int = SAMPLE_ROWS

    def of(self, store: FeatureStore) -> list[Trial]:
        """The trials, sorted by name, each with the chosen features, their flags and the times alone.

        Raises ValueError where a trial is not in the store, or has none of a feature.
        """
        names = store.trials()
        if self.trials is not None:
            check_known("trial", self.trials, [*names, *map(whole_trial, names)])
            names = [name for name in names if name in self.trials or whole_trial(name) in self.trials]
        trials = [store[name] for name in names]
        if self.features is None:
            return trials
        kept = {TIME, *self.features, *(f"{name}{VALID_SUFFIX}" for name in self.features)}
        chosen = []
        for trial in trials:
            check_known(f"feature of trial {trial.name}", self.features, list(trial))
            checksums = {name: checksum for name, checksum in trial.checksums.items() if name in kept}
            chosen.append(Trial(store.files, trial.name, {**trial.attributes, "checksums": checksums}))
        return chosen


EVERYTHING = Choice()


def export_store(store: FeatureStore, to: str, out: Path, choice: Choice = EVERYTHING, overwrite: bool = False) -> int:
    """Write the chosen complete trials to `out` as `to`, one of FORMATS; returns their number.

    Each file appears whole or not at all, of datasets and webdataset the whole folder. Raises ValueError on another
    format, on an unknown trial or feature, where `out` lies in a store, a file is there already and `overwrite` is not
    given, or pyarrow is needed and missing; OSError where nothing can be written.
    """
    if to not in FORMATS:
        raise ValueError(f"exports are one of {', '.join(FORMATS)}, got {to!r}")
    check_place(out)
    if to in _ONE_FILE and out.is_dir():
        raise ValueError(f"{out} is a folder, and {to} is one file; name it")
    if to not in _ONE_FILE and out.is_file():
        raise ValueError(f"{out} is a file, and {to} is a folder of files; name another --out")
    trials = choice.of(store)
    if to in _ONE_FILE:
        targets = [out]
    elif to in OWN_FILES:
        targets = sorted(out.iterdir()) if out.is_dir() else []
        if others := [path.name for path in targets if not OWN_FILES[to].fullmatch(path.name)]:
            raise ValueError(f"{out} holds other files ({preview(others)}); name another --out")
    elif to == "npy":
        targets = [out / trial.name / f"{array}.npy" for trial in trials for array in trial]
    else:
        targets = [out / f"{trial.name}.{to}" for trial in trials]  # not `with_suffix`: names may hold dots
    there = [path for path in targets if path.exists()]
    if there and not overwrite:
        raise ValueError(f"{preview(map(str, there), 1)} would be replaced: --overwrite does so; or name another --out")
    for path in there:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder, not a file", str(path))
    write = partial(to_webdataset, sample_rows=choice.sample_rows) if to == "webdataset" else FORMATS[to]
    write(store, trials, out)
    return len(trials)


def estimated_bytes(store: FeatureStore, to: str, choice: Choice = EVERYTHING) -> int:
    """About how much an export takes. Raises ValueError as `export_store` does.

    From the rows of each trial and the width of each array, of which one trial's is looked at. Nothing is compressed.
    """
    row_bytes: dict[str, int] = {}
    total = 0
    for trial in choice.of(store):
        for array in trial:
            if array not in row_bytes:
                shape, dtype = trial[array].shape, trial[array].dtype
                value_bytes = _CSV_BYTES.get(dtype.kind, dtype.itemsize) if to == "csv" else dtype.itemsize
                row_bytes[array] = int(np.prod(shape[1:], dtype=np.int64)) * value_bytes
            total += trial.rows * row_bytes[array]
    return total


def to_h5(store: FeatureStore, trials: Sequence[Trial], out: Path) -> None:
    """One HDF5 file with the store's groups, chunk sizes and attributes.

    Raises OSError where it cannot be written, ValueError on a name that HDF5 cannot hold.
    """
    import h5py  # noqa: PLC0415

    # Groups that hold faces are exported with them; without all of its faces a group is not one.
    chosen = {trial.name for trial in trials}
    containers = []
    for name, attributes in store.groups().items():
        faces = attributes.get("faces")
        held = {f"{name}/face{face}" for face in range(faces)} if isinstance(faces, int) else None
        if name not in chosen and held is not None and held <= chosen:
            containers.append(Trial(store.files, name, attributes))
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        whole_file(out) as temporary,
        _Written(temporary, "w+") as written,
        h5py.File(written, "w", libver=("v110", "latest")) as file,
    ):
        file.attrs[FORMAT_KEY] = json.dumps(FORMAT)
        for trial in [*trials, *containers]:
            group = _h5_group(file, trial)
            _fill_h5_group(group, trial)
            if written.failed:
                raise written.failed


def _h5_group(file: Any, trial: Trial) -> Any:
    """The group of a trial. Raises ValueError where HDF5 cannot hold its name."""
    try:
        return file.require_group(trial.name)
    except UnicodeEncodeError as error:
        raise ValueError(f"HDF5 holds UTF-8 names only, and {trial.name!r} is not UTF-8; rename its video") from error


def _fill_h5_group(group: Any, trial: Trial) -> None:
    """Attributes and arrays of one trial; all are closed at the end, on which the layout of the file depends."""
    group.attrs.update({name: json.dumps(value) for name, value in trial.attributes.items()})
    for name, values in trial.items():
        chunks = values.chunks if values.size else None
        data = group.create_dataset(name, shape=values.shape, dtype=values.dtype, chunks=chunks)
        words = {**values.attrs.asdict(), "dimension_names": list(dims_of(values))}
        data.attrs.update({name: json.dumps(value) for name, value in words.items()})
        for rows in row_slices(values.shape[0], values.chunks[0]):
            data[rows] = read_rows(values, rows)


def to_matlab(store: FeatureStore, trials: Sequence[Trial], out: Path) -> None:
    """One HDF5 file for MATLAB's `h5read`: format 1.8, true and false as uint8 1 and 0, float16 as float32.

    MATLAB has the axes the other way round: [T, D] is D × T there. Strings are of fixed length; the attributes of a
    trial are JSON in its uint8 array `attributes_json`: `jsondecode(char(h5read(file, path)'))`. Raises as `to_h5`.
    """
    import h5py  # noqa: PLC0415

    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        whole_file(out) as temporary,
        _Written(temporary, "w+") as written,
        h5py.File(written, "w", libver=("earliest", "v108")) as file,
    ):
        order = "C: rows come first in this file, and last in MATLAB; permute(x, ndims(x):-1:1) turns them round"
        file.attrs.update({"made_by": np.bytes_(f"avfuse {__version__}"), "order": np.bytes_(order)})
        for trial in trials:
            group = _h5_group(file, trial)
            group.attrs["rows"] = np.float64(trial.rows)
            group["attributes_json"] = np.frombuffer(json.dumps(trial.attributes).encode(), np.uint8)
            for name, values in trial.items():
                dtype = np.dtype({"?": "u1", "e": "f4"}.get(values.dtype.char, values.dtype))
                chunks = values.chunks if values.size else None
                data = group.create_dataset(name, shape=values.shape, dtype=dtype, chunks=chunks)
                words = {"units": "1", "long_name": name, **values.attrs.asdict(), "axes": ",".join(dims_of(values))}
                data.attrs.update({key: np.bytes_(str(word).encode() or b" ") for key, word in words.items()})
                for rows in row_slices(values.shape[0], values.chunks[0]):
                    data[rows] = read_rows(values, rows).astype(dtype)
            if written.failed:
                raise written.failed


class _Written(io.FileIO):
    """A file for HDF5, which crashes where a write fails: the error is kept, and raised when HDF5 has closed."""

    failed: OSError | None = None

    def write(self, content: ReadableBuffer, /) -> int:
        left = memoryview(content).cast("B")
        try:
            while left and not self.failed:
                left = left[super().write(left) :]
        except OSError as error:
            self.failed = error
        return memoryview(content).nbytes

    def close(self) -> None:
        super().close()
        failed, self.failed = self.failed, None
        if failed:
            raise failed


def to_npy(store: FeatureStore, trials: Sequence[Trial], out: Path) -> None:
    """One folder per trial, one file per array."""
    for trial in trials:
        folder = out / trial.name
        folder.mkdir(parents=True, exist_ok=True)
        for array, values in trial.items():
            with whole_file(folder / f"{array}.npy") as temporary, temporary.open("wb") as file:
                header = {"descr": values.dtype.str, "fortran_order": False, "shape": values.shape}
                np.lib.format.write_array_header_1_0(file, header)
                for rows in row_slices(values.shape[0], values.chunks[0]):
                    file.write(read_rows(values, rows).tobytes())
        with whole_file(folder / "attributes.json") as temporary:
            temporary.write_text(json.dumps(trial.attributes, indent=2))


def to_parquet(store: FeatureStore, trials: Sequence[Trial], out: Path) -> None:
    """One file per trial, one row per frame; the attributes stand in the schema as JSON text under `avfuse`.

    Raises ValueError without pyarrow.
    """
    try:
        import pyarrow  # noqa: PLC0415
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError as error:
        raise ValueError(f"parquet needs pyarrow: pip install 'avfuse[parquet]' ({error})") from error
    for trial in trials:
        path = out / f"{trial.name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        tables = _tables(trial)
        types = {column: pyarrow.from_numpy_dtype(part.dtype) for column, part in next(tables).items()}
        schema = pyarrow.schema(types.items(), metadata={"avfuse": json.dumps(trial.attributes)})
        with whole_file(path) as temporary, pyarrow.parquet.ParquetWriter(temporary, schema) as writer:
            for columns in tables:
                writer.write_table(pyarrow.table(columns, schema=schema))


def to_csv(store: FeatureStore, trials: Sequence[Trial], out: Path) -> None:
    """One file per trial, one row per frame; floats as Python writes them, which is exact."""
    for trial in trials:
        path = out / f"{trial.name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            tables = _tables(trial)
            writer.writerow(next(tables))
            for columns in tables:
                writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))


FORMATS: dict[str, Callable[[FeatureStore, Sequence[Trial], Path], None]] = {
    "h5": to_h5,
    "matlab": to_matlab,
    "npy": to_npy,
    "parquet": to_parquet,
    "csv": to_csv,
    "datasets": to_datasets,
    "webdataset": to_webdataset,
}
_ONE_FILE = ("h5", "matlab")


def _tables(trial: Trial) -> Iterator[dict[str, NDArray[Any]]]:
    """The columns of a trial, one per value, `time` first: without rows, then `_SLICE_ROWS` rows at a time.

    `face_landmarks` [T, 5, 2] becomes `face_landmarks_0_0`, `face_landmarks_0_1` …
    """
    arrays = dict(trial.items())
    order = sorted(arrays, key=lambda name: (name != TIME, name))
    for rows in (slice(0, 0), *row_slices(trial.rows, _SLICE_ROWS)):
        columns: dict[str, NDArray[Any]] = {}
        for name in order:
            values = read_rows(arrays[name], rows)
            for index in np.ndindex(values.shape[1:]):
                columns["_".join(map(str, (name, *index)))] = values[:, *index]
        yield columns
