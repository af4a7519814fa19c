"""All rows of one array into memory that the caller owns: not much slower than NumPy reads a file of the same bytes.

zarr 3.1 spends a millisecond of its event loop on a chunk of 1 MB, several times what decoding it takes. A shard that
our writer left in a local folder is simple enough to be read by hand, one chunk after the other:

    chunk │ chunk │ … │ index: offset and length of each chunk as uint64, crc32c

A chunk is zstd around [values, crc32c]. Arrays behind a URL, and any that our writer did not lay out, go through zarr.

Tested by tests/features_store/arrays/test_shard_reader.py; timed by benchmarks/load_store.py.
"""

from __future__ import annotations

from io import SEEK_END, FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numcodecs
import numpy as np
from numpy.typing import NDArray
from zarr.storage import LocalStore

from ..disk.unwritable import naming
from ..schema import StoreMismatch
from .zarr_array import CHUNK_ERRORS, broken_rows, row_slices, rows_by_zarr

if TYPE_CHECKING:
    import zarr

    Bytes = NDArray[np.uint8]


_CRC_BYTES = 4
_CRC, _ZSTD = numcodecs.CRC32C(location="end"), numcodecs.Zstd()


def read_into(array: zarr.Array[Any], out: NDArray[Any]) -> None:
    """Fill `out` [T, ...], C-contiguous and of the array's type, with all rows; beyond it, two chunks are in memory.

    Threads may read at once, into different rows of one large array too. Raises ValueError where `out` does not fit,
    StoreMismatch with the rows where a chunk is broken or a file is missing.
    """
    if out.shape != array.shape or out.dtype != array.dtype or not (out.flags.c_contiguous and out.flags.writeable):
        got = f"{out.shape} of {out.dtype} for {array.store_path}, which is {array.shape} of {array.dtype}"
        raise ValueError(f"rows are read into a writeable C-contiguous array of their shape and type, got {got}")
    ours = _is_ours(array)
    for rows in row_slices(array.shape[0], (array.shards or array.chunks)[0]):
        if ours:
            _read_shard(array, rows, out[rows])
        else:
            out[rows] = rows_by_zarr(array, rows)


def read_rows(array: zarr.Array[Any], rows: slice) -> NDArray[Any]:
    """Rows [start, stop) in new memory; beyond it, two chunks. Raises StoreMismatch where they are broken or missing.

    They are [stop - start, ...] in the array's own type. A chunk of our own layout is never larger than the metadata
    says, whatever is packed into it.
    """
    if not 0 <= rows.start <= rows.stop <= array.shape[0]:
        raise StoreMismatch(
            f"{array.store_path} ends at row {array.shape[0]}, and does not have the rows {rows.start}–{rows.stop}"
        )
    if not _is_ours(array):
        return rows_by_zarr(array, rows)
    out = np.empty((rows.stop - rows.start, *array.shape[1:]), array.dtype)
    shard_rows = (array.shards or array.chunks)[0]
    begin = rows.start
    while begin < rows.stop:
        first = begin - begin % shard_rows
        shard = slice(first, min(first + shard_rows, array.shape[0]))
        part = slice(begin, min(shard.stop, rows.stop))
        _read_shard(array, shard, out[part.start - rows.start : part.stop - rows.start], part)
        begin = part.stop
    return out


def _is_ours(array: zarr.Array[Any]) -> bool:
    """Whether the array lies in a local folder just as `create_array` lays it out."""
    words: Any = array.metadata.to_dict()
    sharding = words["codecs"][0]
    if not isinstance(array.store, LocalStore) or sharding["name"] != "sharding_indexed" or len(words["codecs"]) > 1:
        return False
    shard = sharding["configuration"]
    codecs = [*shard["codecs"], *shard["index_codecs"]]
    return (
        [codec["name"] for codec in shard["codecs"]] == ["bytes", "crc32c", "zstd"]
        and [codec["name"] for codec in shard["index_codecs"]] == ["bytes", "crc32c"]
        and all(codec.get("configuration", {}).get("endian", "little") == "little" for codec in codecs)
        and shard["index_location"] == "end"
        and array.chunks[1:] == (array.shards or ())[1:] == array.shape[1:]
        and array.dtype == array.dtype.newbyteorder("<")
        and not words["storage_transformers"]
    )


def _read_shard(array: zarr.Array[Any], rows: slice, out: NDArray[Any], wanted: slice | None = None) -> None:
    """Decode one file, of the whole's `rows`, into `out`: all of them, or the `wanted` ones."""
    wanted = wanted or rows
    chunk_rows, shard_rows = array.chunks[0], (array.shards or array.chunks)[0]
    parts = [
        slice(rows.start + part.start, rows.start + part.stop)
        for part in row_slices(rows.stop - rows.start, chunk_rows)
    ]
    store: Any = array.store
    number = (rows.start // shard_rows, *(0 for _ in array.shape[1:]))
    path = Path(store.root, array.path, array.metadata.encode_chunk_key(number))
    broken = wanted  # what is lost with the index; from then on the rows of the chunk at hand
    try:
        with naming(path), FileIO(path) as file:
            index = _read_index(file, shard_rows // chunk_rows, len(parts))
            room = np.empty(max(length for _, length in index), np.uint8)
            for broken, (offset, length) in zip(parts, index, strict=True):
                if broken.start < wanted.stop and broken.stop > wanted.start:
                    stored = _fill(room[:length], file, offset)
                    if broken.start >= wanted.start and broken.stop <= wanted.stop:
                        _decode(stored, out[broken.start - wanted.start :], chunk_rows)
                        continue
                    chunk = np.empty((broken.stop - broken.start, *out.shape[1:]), out.dtype)
                    _decode(stored, chunk, chunk_rows)
                    both = slice(max(broken.start, wanted.start), min(broken.stop, wanted.stop))
                    source = chunk[both.start - broken.start : both.stop - broken.start]
                    out[both.start - wanted.start : both.stop - wanted.start] = source
    except FileNotFoundError as error:
        raise broken_rows(array, broken, f"{path}: {error.strerror}") from error
    except CHUNK_ERRORS as error:
        raise broken_rows(array, broken, f"{path}: {error}") from error


def _decode(stored: Bytes, out: NDArray[Any], rows: int) -> None:
    """Put a chunk of `rows` rows, or those of them that `out` has room for, at the head of `out`.

    The chunk's checksum runs over into the rows behind it, which come next; only the last chunk takes a copy.
    """
    size = rows * out[:1].nbytes + _CRC_BYTES
    plain = out.reshape(-1).view(np.uint8)[:size]
    if plain.size == size:
        _CRC.decode(_ZSTD.decode(stored, plain))
    else:
        chunk = _CRC.decode(_ZSTD.decode(stored, np.empty(size, np.uint8))).view(out.dtype)
        out[:rows] = chunk.reshape(rows, *out.shape[1:])[: len(out)]


def _read_index(file: FileIO, chunks: int, used: int) -> list[list[int]]:
    """[offset, length] of the first `used` chunks of a shard; it has room for more where the array ends early.

    Raises ValueError where a chunk is not within the file (one that was never written has the offset 2^64 - 1).
    """
    stored = np.empty(chunks * 16 + _CRC_BYTES, np.uint8)
    end = file.seek(0, SEEK_END) - stored.size
    if end < 0:
        raise ValueError("the file is shorter than its index")
    pairs: list[list[int]] = _CRC.decode(_fill(stored, file, end)).view("<u8").reshape(chunks, 2)[:used].tolist()
    if any(offset + length > end for offset, length in pairs):
        raise ValueError("a chunk is missing, or lies past the end of the file")
    return pairs


def _fill(room: Bytes, file: FileIO, offset: int) -> Bytes:
    """`room`, full of what the file holds from `offset` on."""
    file.seek(offset)
    if file.readinto(room.data) != room.size:
        raise ValueError("the file ends too early")
    return room
