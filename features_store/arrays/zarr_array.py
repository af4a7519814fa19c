"""One array of a trial: written shard by shard with its checksum, opened lazily.

Tested by tests/features_store/test_store.py.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.sync import sync

from ..schema import NODE_FILE, ZSTD_LEVEL, RowSource, StoreMismatch, is_array_name, layout, spec_of

_KINDS = "biuf"
# Sixteen times the largest that is ever written: more is not a shard, but a number that somebody made up.
_MOST_SHARD_BYTES = 1 << 30
_MOST_CHUNKS = 1 << 12
# What zarr 3.1 raises on metadata with a wrong word or number: JSON, checks, absent keys, other types.
_METADATA_ERRORS = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    NotImplementedError,
    RecursionError,
)
# What zarr 3.1 raises on a broken chunk: crc32c ValueError, zstd RuntimeError (MemoryError: absurd length).
CHUNK_ERRORS = (ValueError, RuntimeError, MemoryError)


def common_rows(arrays: Mapping[str, RowSource]) -> int:
    """T of a trial's arrays [T, ...], 0 without any. Raises ValueError where they differ or do not fit their names."""
    rows = {name: source.shape[0] if source.shape else 0 for name, source in arrays.items()}
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(rows.items()))
        raise ValueError(f"the arrays of one trial have the same number of rows, got {counts}")
    for name, source in arrays.items():
        if not is_array_name(name):
            raise ValueError(f"{name!r} cannot name an array")
        wanted = spec_of(name, len(source.shape), source).dtype
        if source.dtype.kind not in _KINDS or (wanted and source.dtype != np.dtype(wanted)):
            raise ValueError(f"{name} holds {wanted or 'numbers'}, got {source.dtype}")
        layout(name, source.shape, source.dtype.itemsize, source)
    return next(iter(rows.values()), 0)


def write_array(location: str, name: str, source: RowSource) -> str:
    """Write the rows of `source` [T, ...] as a new zarr array; returns the sha256 of its raw little-endian bytes.

    Memory holds one shard at a time, whatever T is; every chunk is stored, so that a missing one shows.
    Raises ValueError where the source gives other rows than it announced.
    """
    array = create_array(location, name, source)
    digest = hashlib.sha256()
    shard_rows = (array.shards or array.chunks)[0]
    for rows in row_slices(source.shape[0], shard_rows):
        block = source[rows]
        shape = (rows.stop - rows.start, *source.shape[1:])
        if block.shape != shape or block.dtype != source.dtype:
            raise ValueError(
                f"asked for rows {shape} of {source.dtype}, the source gave {block.shape} of {block.dtype}"
            )
        block = np.ascontiguousarray(block, dtype=source.dtype.newbyteorder("<"))
        array[rows] = block
        digest.update(block.data)
    return digest.hexdigest()


def create_array(location: str, name: str, source: RowSource) -> zarr.Array[Any]:
    """An empty array for the rows of `source` [T, ...], with the layout, names and units of the schema."""
    spec = spec_of(name, len(source.shape), source)
    plan = layout(name, source.shape, source.dtype.itemsize, source)
    return zarr.create_array(
        store=location,
        shape=source.shape,
        dtype=source.dtype.newbyteorder("<"),
        chunks=plan.chunk,
        shards=plan.shard,
        # The checksum is taken of the plain bytes, so that it also covers what zstd gives back. Blosc would be smaller
        # by 6 %, but it believes the lengths in a broken chunk, and reads past its end.
        compressors=[Crc32cCodec(), ZstdCodec(level=ZSTD_LEVEL)],
        fill_value=0,
        dimension_names=plan.dims,
        attributes={"units": spec.units, "long_name": spec.long_name},
        config={"write_empty_chunks": True},
        zarr_format=3,
    )


def open_array(location: str) -> zarr.Array[Any]:
    """An array [T, ...] for reading; slices read the chunks they need.

    Raises StoreMismatch where its zarr.json is broken, or asks for more memory than any array of a store.
    """
    try:
        array = zarr.open_array(store=location, mode="r", zarr_format=3)
        shard = array.shards or array.chunks
        if not array.ndim or array.dtype.kind not in _KINDS:
            fault = f"an array of {array.ndim} axes of {array.dtype}"
        elif min(shard) < 1 or math.prod(shard) * array.dtype.itemsize > _MOST_SHARD_BYTES:
            fault = f"shards of {shard} {array.dtype}"
        elif math.prod(shard) > _MOST_CHUNKS * math.prod(array.chunks):
            fault = f"shards of {shard} in chunks of {array.chunks}"
        else:
            return array
    except _METADATA_ERRORS as error:
        fault = f"{type(error).__name__}: {error}"
    raise StoreMismatch(f"{location}/{NODE_FILE} is broken ({fault}): remove it, and extract again")


def rows_by_zarr(array: zarr.Array[Any], rows: slice) -> NDArray[Any]:
    """Rows [start, stop) in memory, as zarr reads them: [stop - start, ...] in the array's own type.

    Raises StoreMismatch where a chunk is broken or missing.
    """
    first, *others = array.shards or array.chunks
    counts = (range(-(-size // step)) for size, step in zip(array.shape[1:], others, strict=True))
    for number in product(range(rows.start // first, -(-rows.stop // first)), *counts):
        key = f"{array.path}/{array.metadata.encode_chunk_key(number)}".lstrip("/")
        if not sync(array.store.exists(key)):  # zarr would fill in zeros; a store's arrays are written whole
            raise broken_rows(array, rows, f"{key} is missing")
    try:
        return np.asarray(array[rows])
    except CHUNK_ERRORS as error:
        raise broken_rows(array, rows, error) from error


def broken_rows(array: zarr.Array[Any], rows: slice, why: object) -> StoreMismatch:
    """What to raise where rows [start, stop) of an array [T, ...] cannot be read."""
    broken = f"rows {rows.start}–{rows.stop} of {array.store_path} are broken ({why})"
    return StoreMismatch(f"{broken}; `avfuse verify` names every broken chunk")


def dims_of(array: zarr.Array[Any]) -> tuple[str, ...]:
    """Names of an array's axes as stored; empty where it has none."""
    names = array.metadata.to_dict().get("dimension_names")
    return tuple(map(str, names)) if isinstance(names, (list, tuple)) else ()


def row_slices(num_rows: int, step: int) -> Iterator[slice]:
    """[0, T) cut into half-open slices of `step` rows."""
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))
