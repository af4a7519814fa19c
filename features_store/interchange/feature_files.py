"""Features that others have made, one file per trial: npy, npz, HDF5, CSV and Parquet, block by block, never pickle.

    npy           the rows [T, D]; one number per row may be [T]; more axes are kept (npy, npz and h5)
    npz, h5       `features`, or the only array, beside `time` (`time_s`, `times`, `timestamp`): float64 [T], s
    csv, parquet  one column per value, in order, and a column of times by the same names

A file is not believed: what its header claims is held against its size before memory is taken, and memory holds one
block, whatever is in it. Tested by tests/features_store/interchange/test_feature_files.py.
"""

from __future__ import annotations

import csv
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...shell.text import counted, in_words, one_line, preview
from ..arrays.zarr_array import row_slices

ROWS_NAME = "features"
TIME_NAMES = ("time", "time_s", "times", "timestamp")
BLOCK_BYTES = 4 << 20
_KINDS = "biuf"
_MOST_ROWS = 10_000_000  # a day at 100 Hz
_MOST_ROW_BYTES = 16 << 20
# deflate, zstd and HDF5's filters pack zeros some thousandfold at most.
_MOST_PACKED = 1100
_SMALL_BYTES = 1 << 16
_MOST_WHOLE_BYTES = 1 << 30  # of arrays that cannot be read by rows: those in Fortran order, chunks of HDF5
_MOST_LINE = 16 << 20
# What NumPy, zipfile, h5py and pyarrow raise on broken files, besides OSError and ValueError.
_READ_ERRORS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    EOFError,
    RuntimeError,
    MemoryError,
    OverflowError,
    SyntaxError,
    csv.Error,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


class FeatureFileError(ValueError):
    """A file of features that cannot be taken as it is; the message names it and what is wrong."""


@dataclass(frozen=True)
class Block:
    """Rows of a file in order: `rows` [n, ...] in its own type, `time_s` float64 [n] where it has times.

    `columns`: names of the values, of formats that have them.
    """

    rows: NDArray[Any]
    time_s: NDArray[np.float64] | None = None
    columns: tuple[str, ...] = ()


def read_blocks(path: Path) -> Iterator[Block]:
    """All rows of a file in blocks of about 4 MB, at least one block. Raises FeatureFileError naming the file."""
    try:
        yield from READERS[path.suffix.lower()](path)
    except FeatureFileError:
        raise
    except _READ_ERRORS as error:
        if isinstance(error, OSError) and error.errno:  # the disk's fault, or that of rights
            raise FeatureFileError(f"{path} cannot be read: {error.strerror or error}") from error
        raise FeatureFileError(f"{path} is broken, or cut off ({one_line(error)}); make it again") from error


def _check_claim(path: Path, what: str, shape: tuple[int, ...], dtype: np.dtype[Any], held_bytes: int) -> int:
    """Bytes of one row of an array as a header describes it. Raises FeatureFileError where it is not to be believed.

    `held_bytes`: size of the file, packed or not.
    """
    if dtype.hasobject:
        fault = "holds objects, not numbers; those of NumPy are pickled, and a pickle can run any code"
    elif dtype.kind not in _KINDS:
        fault = f"holds {dtype}, not numbers"
    elif not shape:
        fault = "is a single number; one row per frame is needed, [T, D]"
    elif 0 in shape:
        fault = f"has the shape {list(shape)}: there is nothing in it"
    elif shape[0] > _MOST_ROWS:
        fault = f"claims {shape[0]} rows; the most that are taken are {_MOST_ROWS}"
    elif (row_bytes := math.prod(shape[1:]) * dtype.itemsize) > _MOST_ROW_BYTES:
        fault = f"claims rows of {in_words(row_bytes)}; the most that are taken are {in_words(_MOST_ROW_BYTES)}"
    elif shape[0] * row_bytes > _MOST_PACKED * held_bytes + _SMALL_BYTES:
        fault = f"claims {in_words(shape[0] * row_bytes)}, which a file of {in_words(held_bytes)} cannot hold"
    else:
        return row_bytes
    raise FeatureFileError(f"{path}: {what} {fault}")


def _npy_blocks(path: Path, what: str, file: IO[bytes], file_bytes: int, whole_bytes: int) -> Iterator[NDArray[Any]]:
    """An array in npy format from a file, or from a member of an npz, that has `whole_bytes`."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise FeatureFileError(f"{path}: {what} has version {version} of the npy format; save it as plain numbers")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, in_columns, dtype = read_header(file)
    row_bytes = _check_claim(path, what, shape, dtype, file_bytes)
    held_bytes = whole_bytes - file.tell()
    if held_bytes != shape[0] * row_bytes:
        claimed = f"{list(shape)} of {dtype}, {shape[0] * row_bytes} bytes"
        raise FeatureFileError(f"{path}: {what} claims {claimed}, and {held_bytes} follow: it is cut off, or broken")
    if in_columns and len(shape) > 1 and held_bytes > _MOST_WHOLE_BYTES:
        raise FeatureFileError(f"{path}: {what} is large and in Fortran order; save it by np.ascontiguousarray(rows)")
    if in_columns and len(shape) > 1:
        whole = np.frombuffer(_exactly(file, held_bytes), dtype).reshape(shape[::-1]).T
        yield from (whole[rows] for rows in row_slices(shape[0], max(1, BLOCK_BYTES // row_bytes)))
    else:
        for rows in row_slices(shape[0], max(1, BLOCK_BYTES // row_bytes)):
            part = _exactly(file, (rows.stop - rows.start) * row_bytes)
            yield np.frombuffer(part, dtype).reshape(-1, *shape[1:])
    file.read(1)  # of a zip archive: only now is the checksum looked at


def _exactly(file: IO[bytes], size: int) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise EOFError(f"{len(content)} of {size} bytes")
    return content


def _read_npy(path: Path) -> Iterator[Block]:
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(2)[:1] == b"\x80":
            raise FeatureFileError(f"{path} is a pickle, which can run any code; save the array by np.save")
        file.seek(0)
        for rows in _npy_blocks(path, "it", file, size, size):
            yield Block(_with_width(rows))


def _read_npz(path: Path) -> Iterator[Block]:
    size = path.stat().st_size
    if not zipfile.is_zipfile(path):
        raise FeatureFileError(f"{path} is not an npz file, or cut off; make it again by np.savez")
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        rows_name, time_name = _which_arrays(path, list(members))
        time_s = None
        if time_name is not None:
            with archive.open(members[time_name]) as file:
                whole_bytes = members[time_name].file_size
                time_s = np.concatenate(list(_npy_blocks(path, time_name, file, size, whole_bytes)))
                time_s = _checked_times(path, time_name, time_s)
        with archive.open(members[rows_name]) as file:
            blocks = _npy_blocks(path, rows_name, file, size, members[rows_name].file_size)
            yield from _with_times(path, blocks, time_s)


def _read_h5(path: Path) -> Iterator[Block]:
    import h5py  # noqa: PLC0415

    if not h5py.is_hdf5(path):
        raise FeatureFileError(f"{path} is not an HDF5 file, or cut off; make it again")
    size = path.stat().st_size
    with h5py.File(path, "r") as file:
        arrays = {}
        for name in file:
            link = file.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise FeatureFileError(f"{path}: {name} is a link; copy what it leads to")
            if isinstance(file[name], h5py.Dataset):
                arrays[name] = file[name]
        if not arrays:
            raise FeatureFileError(f"{path} has no array at its top, only {preview(file) or 'nothing'}")
        rows_name, time_name = _which_arrays(path, list(arrays))
        for name in filter(None, (time_name, rows_name)):
            array = arrays[name]
            row_bytes = _check_claim(path, name, array.shape, array.dtype, size)
            if array.external or array.is_virtual:
                raise FeatureFileError(f"{path}: the rows of {name} lie in other files; copy them into this one")
            if array.chunks and math.prod(array.chunks) * array.dtype.itemsize > _MOST_WHOLE_BYTES:
                raise FeatureFileError(f"{path}: {name} has chunks of {list(array.chunks)}; make them smaller")
            if not array.id.get_storage_size():
                raise FeatureFileError(f"{path}: {name} is {list(array.shape)} of which nothing was ever written")
        time_s = _checked_times(path, time_name, arrays[time_name][:]) if time_name is not None else None
        step = max(1, BLOCK_BYTES // row_bytes, array.chunks[0] if array.chunks else 1)
        yield from _with_times(path, (array[rows] for rows in row_slices(array.shape[0], step)), time_s)


def _which_arrays(path: Path, names: list[str]) -> tuple[str, str | None]:
    """The names of the rows and of the times. Raises FeatureFileError where that is not clear."""
    times = [name for name in names if name.strip().lower() in TIME_NAMES]
    others = [name for name in names if name not in times]
    rows = ROWS_NAME if ROWS_NAME in others else others[0] if len(others) == 1 else None
    if rows is None or len(times) > 1:
        fault = f"has {preview(names) or 'nothing'}; call the rows {ROWS_NAME!r}, and the times {TIME_NAMES[0]!r}"
        raise FeatureFileError(f"{path} {fault}")
    return rows, next(iter(times), None)


def _checked_times(path: Path, name: str, time_s: NDArray[Any]) -> NDArray[np.float64]:
    if time_s.ndim != 1 and time_s.shape[1:] != (1,) * (time_s.ndim - 1):
        raise FeatureFileError(f"{path}: {name} has the shape {list(time_s.shape)}; one time per row is needed, [T]")
    return time_s.reshape(-1).astype(np.float64)


def _with_times(path: Path, blocks: Iterator[NDArray[Any]], time_s: NDArray[np.float64] | None) -> Iterator[Block]:
    """The blocks, each with its times. Raises FeatureFileError where there are more or fewer times than rows."""
    read = 0
    for rows in blocks:
        times = None if time_s is None else time_s[read : read + len(rows)]
        read += len(rows)
        if times is None or len(times) == len(rows):
            yield Block(_with_width(rows), times)
    if time_s is None or read == time_s.size:
        return
    raise FeatureFileError(f"{path} has {counted(time_s.size, 'time')}, and another number of rows")


def _with_width(rows: NDArray[Any]) -> NDArray[Any]:
    return rows[:, None] if rows.ndim == 1 else rows


def _read_csv(path: Path) -> Iterator[Block]:
    """Empty cells are NaN. A line that is longer than 16 MB is refused."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(iter(lambda: _line(path, file), ""))
        names = [name.strip() for name in next(lines, [])]
        columns, at_time = _which_columns(path, names)
        step = max(1, min(4096, BLOCK_BYTES // (8 * len(names))))
        rows: list[list[str]] = []
        places: list[int] = []
        for cells in lines:
            if cells:
                rows.append([cell if cell.strip() else "nan" for cell in cells])
                places.append(lines.line_num)
            if len(rows) == step:
                yield _csv_block(path, names, columns, at_time, rows, places)
                rows, places = [], []
        if rows or lines.line_num < 2:
            yield _csv_block(path, names, columns, at_time, rows, places)


def _line(path: Path, file: IO[str]) -> str:
    line = file.readline(_MOST_LINE)
    if len(line) == _MOST_LINE:
        raise FeatureFileError(f"{path} has a line of more than {_MOST_LINE} characters; it is not a table")
    return line


def _csv_block(
    path: Path, names: list[str], columns: list[int], at_time: int | None, rows: list[list[str]], places: list[int]
) -> Block:
    try:
        numbers = np.array(rows, np.float64).reshape(len(rows), len(names))
    except ValueError:  # which line it is, and which column
        for place, cells in zip(places, rows, strict=True):
            if len(cells) != len(names):
                fault = f"{counted(len(cells), 'value')} under {counted(len(names), 'name')}"
                raise FeatureFileError(f"{path}:{place}: {fault}") from None
            for name, cell in zip(names, cells, strict=True):
                try:
                    float(cell)
                except ValueError:
                    raise FeatureFileError(f"{path}:{place}: {name} is {cell[:40]!r}, not a number") from None
        raise
    times = None if at_time is None else numbers[:, at_time]
    return Block(numbers[:, columns], times, tuple(names[at] for at in columns))


def _read_parquet(path: Path) -> Iterator[Block]:
    """Nulls are NaN; an index that pandas has written is left out."""
    try:
        import pyarrow  # noqa: PLC0415
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError as error:
        raise FeatureFileError(f"{path} needs pyarrow: pip install 'avfuse[parquet]' ({error})") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            fields = [field for field in file.schema_arrow if not field.name.startswith("__index_level_")]
            names = [field.name.strip() for field in fields]
            columns, at_time = _which_columns(path, names)
            for field in fields:
                kind = field.type
                if not any(is_kind(kind) for is_kind in (pyarrow.types.is_floating, pyarrow.types.is_integer)):
                    raise FeatureFileError(f"{path}: {field.name} holds {kind}, not numbers; times are in s")
            if file.metadata.num_rows > _MOST_ROWS or not file.metadata.num_rows:
                fault = f"claims {counted(file.metadata.num_rows, 'row')}; 1 to {_MOST_ROWS} are taken"
                raise FeatureFileError(f"{path} {fault}")
            step = max(1, BLOCK_BYTES // (8 * len(names)))
            read = 0
            for batch in file.iter_batches(step, columns=[field.name for field in fields]):
                found = [column.to_numpy(zero_copy_only=False).astype(np.float64) for column in batch.columns]
                times = None if at_time is None else found[at_time]
                rows = np.column_stack([found[at] for at in columns])
                read += len(rows)
                yield Block(rows, times, tuple(names[at] for at in columns))
            if read != file.metadata.num_rows:
                raise EOFError(f"{read} of {counted(file.metadata.num_rows, 'row')}")
    except pyarrow.ArrowException as error:
        raise FeatureFileError(f"{path} is broken, or cut off ({one_line(error)}); make it again") from error


def _which_columns(path: Path, names: list[str]) -> tuple[list[int], int | None]:
    """Where the values and the times stand in a table. Raises FeatureFileError where the header is not one."""
    times = [at for at, name in enumerate(names) if name.lower() in TIME_NAMES]
    values = [at for at in range(len(names)) if at not in times]
    unnamed = next((at for at, name in enumerate(names) if not name), None)
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if not names:
        fault = "is empty; a line of names, then one line per row, are needed"
    elif all(_is_number(name) for name in names):
        fault = f"has no header: its first line is {preview(names)}; put the names of the columns there"
    elif unnamed is not None:
        fault = f"has no name for column {unnamed + 1}; an index of pandas is left out by to_csv(index=False)"
    elif twice:
        fault = f"has two columns called {preview(twice)}; rename one"
    elif len(times) > 1:
        fault = f"has {counted(len(times), 'column')} of times: {preview(names[at] for at in times)}; keep one"
    elif not values:
        separated = next((sign for sign in (";", "\t") if sign in names[0]), None)
        fault = f"separates values by {separated!r}, not by commas" if separated else "has no column besides its times"
    else:
        return values, next(iter(times), None)
    raise FeatureFileError(f"{path} {fault}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


READERS: Mapping[str, Callable[[Path], Iterator[Block]]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".h5": _read_h5,
    ".hdf5": _read_h5,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
