"""All rows of one array into memory that the caller owns: not much slower than NumPy reads a file of the same bytes.

zarr 3.1 spends a millisecond of its event loop on a chunk of 1 MB, several times what decoding it takes. A shard that
our writer left in a local folder is simple enough to be read here, one chunk after the other:

    chunk │ chunk │ … │ index: offset and length of each chunk as uint64, crc32c

A chunk is zstd around [values, crc32c]. Arrays behind a URL, and any that our writer did not lay out, go through zarr.

Tested by tests/features_store/test_reading.py; timed by benchmarks/load_store.py.
"""

from __future__ import annotations

from io import SEEK_END, FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numcodecs
import numpy as np
from numpy.typing import NDArray
from zarr.storage import LocalStore

from .arrays import CHUNK_ERRORS, broken_rows, read_rows, row_slices

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
        told = f"{out.shape} of {out.dtype} for {array.store_path}, which is {array.shape} of {array.dtype}"
        raise ValueError(f"rows are read into a writeable C-contiguous array of their shape and type, got {told}")
    ours = _is_ours(array)
    for rows in row_slices(array.shape[0], (array.shards or array.chunks)[0]):
        if ours:
            _read_shard(array, rows, out[rows])
        else:
            out[rows] = read_rows(array, rows)


def _is_ours(array: zarr.Array[Any]) -> bool:
    """Whether the array lies in a local folder just as `create_array` lays it out."""
    words: Any = array.metadata.to_dict()
    sharding = words["codecs"][0]
    if not isinstance(array.store, LocalStore) or sharding["name"] != "sharding_indexed" or len(words["codecs"]) > 1:
        return False
    inside = sharding["configuration"]
    return (
        _names(inside["codecs"]) == ["bytes", "crc32c", "zstd"]
        and _names(inside["index_codecs"]) == ["bytes", "crc32c"]
        and inside["index_location"] == "end"
        and array.chunks[1:] == (array.shards or ())[1:] == array.shape[1:]
        and array.dtype == array.dtype.newbyteorder("<")
        and not words["storage_transformers"]
    )


def _names(codecs: Any) -> list[str]:
    """Names of the codecs; none where they write big-endian bytes."""
    if any(codec.get("configuration", {}).get("endian", "little") != "little" for codec in codecs):
        return []
    return [codec["name"] for codec in codecs]


def _read_shard(array: zarr.Array[Any], rows: slice, out: NDArray[Any]) -> None:
    """Decode one file into `out`, its rows of the whole."""
    store: Any = array.store
    shard_rows, chunk_rows = (array.shards or array.chunks)[0], array.chunks[0]
    number = (rows.start // shard_rows, *(0 for _ in array.shape[1:]))
    parts = list(row_slices(len(out), chunk_rows))
    broken = rows  # what is lost with the index; from then on the rows of the chunk at hand
    try:
        with FileIO(Path(store.root, array.path, array.metadata.encode_chunk_key(number))) as file:
            index = _index(file, shard_rows // chunk_rows, len(parts))
            room = np.empty(max(length for _, length in index), np.uint8)
            for part, (offset, length) in zip(parts, index, strict=True):
                broken = slice(rows.start + part.start, rows.start + part.stop)
                _decode(_filled(room[:length], file, offset), out[part.start :], chunk_rows)
    except (FileNotFoundError, *CHUNK_ERRORS) as error:
        raise broken_rows(array, broken, error) from error


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


def _index(file: FileIO, chunks: int, used: int) -> list[list[int]]:
    """[offset, length] of the first `used` chunks of a shard; it has room for more where the array ends early.

    Raises ValueError where a chunk is not inside the file (one that was never written has the offset 2^64 - 1).
    """
    stored = np.empty(chunks * 16 + _CRC_BYTES, np.uint8)
    end = file.seek(0, SEEK_END) - stored.size
    if end < 0:
        raise ValueError("the file is shorter than its index")
    pairs: list[list[int]] = _CRC.decode(_filled(stored, file, end)).view("<u8").reshape(chunks, 2)[:used].tolist()
    if any(offset + length > end for offset, length in pairs):
        raise ValueError("a chunk is missing, or lies past the end of the file")
    return pairs


def _filled(room: Bytes, file: FileIO, offset: int) -> Bytes:
    """`room`, full of what the file holds from `offset` on."""
    file.seek(offset)
    if file.readinto(room.data) != room.size:
        raise ValueError("the file ends too early")
    return room
