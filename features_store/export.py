"""A store in other formats, slice by slice: HDF5, NumPy files, Parquet, CSV.

    h5        one file             /<trial>/<array>, every attribute as JSON text: nothing is lost
    npy       a folder             <trial>/<array>.npy, <trial>/attributes.json
    parquet   a folder             <trial>.parquet, one column a value: iresnet50_0, iresnet50_1 …
    csv       a folder             <trial>.csv, the same columns, floats to the last bit

Tested by tests/features_store/test_export.py.
"""

from __future__ import annotations

import csv
import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import dims_of, row_slices
from .disk import naming
from .reading import read_rows
from .schema import FORMAT, FORMAT_KEY
from .store import FeatureStore
from .trial import Trial

_SLICE_ROWS = 1024


def export_store(store: FeatureStore, to: str, out: Path) -> int:
    """Write every complete trial to `out` as `to` (`h5`, `npy`, `parquet`, `csv`); returns their number.

    Each file appears whole or not at all; one that is there is replaced. Raises ValueError on another format,
    or where pyarrow is needed and missing; OSError where nothing can be written.
    """
    if to not in FORMATS:
        raise ValueError(f"exports are one of {', '.join(FORMATS)}, got {to!r}")
    return FORMATS[to](store, out)


def to_h5(store: FeatureStore, out: Path) -> int:
    """One HDF5 file with the store's groups, chunk sizes and attributes."""
    import h5py  # noqa: PLC0415

    with whole_file(out) as temporary, h5py.File(temporary, "w", libver=("v110", "latest")) as file:
        file.attrs[FORMAT_KEY] = json.dumps(FORMAT)
        for name, attributes in store.groups().items():
            try:
                group = file.require_group(name)
            except UnicodeEncodeError as error:
                raise ValueError(f"HDF5 holds UTF-8 names only, and {name!r} is none; rename its video") from error
            _h5_group(group, Trial(store.files, name, attributes))
    return len(store)


def _h5_group(group: Any, trial: Trial) -> None:
    _h5_attributes(group, trial.attributes)
    for name, values in trial.items():
        chunks = values.chunks if values.size else None
        data = group.create_dataset(name, shape=values.shape, dtype=values.dtype, chunks=chunks)
        _h5_attributes(data, {**values.attrs.asdict(), "dimension_names": list(dims_of(values))})
        for rows in row_slices(values.shape[0], values.chunks[0]):
            data[rows] = read_rows(values, rows)


def _h5_attributes(node: Any, attributes: Mapping[str, Any]) -> None:
    for name, value in attributes.items():
        node.attrs[name] = json.dumps(value)


def to_npy(store: FeatureStore, out: Path) -> int:
    """A folder a trial, a file an array."""
    for name, trial in store.items():
        folder = out / name
        for array, values in trial.items():
            with whole_file(folder / f"{array}.npy") as temporary, temporary.open("wb") as file:
                header = {"descr": values.dtype.str, "fortran_order": False, "shape": values.shape}
                np.lib.format.write_array_header_1_0(file, header)
                for rows in row_slices(values.shape[0], values.chunks[0]):
                    file.write(read_rows(values, rows).tobytes())
        with whole_file(folder / "attributes.json") as temporary:
            temporary.write_text(json.dumps(trial.attributes, indent=2))
    return len(store)


def to_parquet(store: FeatureStore, out: Path) -> int:
    """A file a trial, a row a frame; the attributes stand in the schema as JSON text under `avfuse`."""
    try:
        import pyarrow  # noqa: PLC0415
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError as error:
        raise ValueError(f"parquet needs pyarrow: pip install 'avfuse[parquet]' ({error})") from error
    for name, trial in store.items():
        types = {column: pyarrow.from_numpy_dtype(part.dtype) for column, part in _empty_columns(trial).items()}
        schema = pyarrow.schema(types.items(), metadata={"avfuse": json.dumps(trial.attributes)})
        with (
            whole_file(_with_suffix(out, name, "parquet")) as temporary,
            pyarrow.parquet.ParquetWriter(temporary, schema) as writer,
        ):
            for columns in _tables(trial):
                writer.write_table(pyarrow.table(columns, schema=schema))
    return len(store)


def to_csv(store: FeatureStore, out: Path) -> int:
    """A file a trial, a row a frame; floats as Python writes them, which is exact."""
    for name, trial in store.items():
        with (
            whole_file(_with_suffix(out, name, "csv")) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_empty_columns(trial))
            for columns in _tables(trial):
                writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
    return len(store)


FORMATS: dict[str, Callable[[FeatureStore, Path], int]] = {
    "h5": to_h5,
    "npy": to_npy,
    "parquet": to_parquet,
    "csv": to_csv,
}


def _tables(trial: Trial) -> Iterator[dict[str, NDArray[Any]]]:
    """The columns of a trial, `_SLICE_ROWS` rows at a time."""
    arrays = dict(trial.items())
    for rows in row_slices(trial.rows, _SLICE_ROWS):
        yield _columns({name: read_rows(values, rows) for name, values in arrays.items()})


def _empty_columns(trial: Trial) -> dict[str, NDArray[Any]]:
    return _columns({name: np.empty((0, *v.shape[1:]), v.dtype) for name, v in trial.items()})


def _columns(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """`time` first, then one column a value: `face_landmarks` [T, 5, 2] becomes `face_landmarks_0_0` …"""
    columns: dict[str, NDArray[Any]] = {}
    for name in sorted(arrays, key=lambda name: (name != "time", name)):
        for index in np.ndindex(arrays[name].shape[1:]):
            columns["_".join(map(str, (name, *index)))] = arrays[name][:, *index]
    return columns


def _with_suffix(out: Path, trial: str, suffix: str) -> Path:
    return out / f"{trial}.{suffix}"  # not `with_suffix`: a trial's name may hold dots


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, moved there at the end; removed where the writing failed."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{os.urandom(6).hex()}.{path.suffix}")
    try:
        yield temporary
        with naming(path):
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
