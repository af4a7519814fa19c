"""A text file to which several processes append whole lines; half a line, as a kill leaves it, is cut off.

Tested by tests/features_store/disk/test_jsonl.py.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .atomic import naming

# What file systems without locks answer; a folder of a network disk cannot be locked either (EBADF).
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EBADF)
_BLOCK = 1 << 16


def append_line(path: Path, line: bytes) -> None:
    """Append one line whole or not at all. Raises OSError naming the file."""
    with naming(path), _open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT) as handle:
        _fix(handle)
        _write(handle, line)


def fix_lines(path: Path) -> None:
    """Cut off half a line at the end, or end a whole one; nothing happens where there is no file."""
    if path.is_file() and not _ends_well(path):
        with naming(path), _open(path, os.O_RDWR | os.O_APPEND) as handle:
            _fix(handle)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes that ask for it, where that can be."""
    with _open(folder, os.O_RDONLY):
        yield


@contextmanager
def _open(path: Path, flags: int) -> Iterator[int]:
    """Open a file or folder and hold it; closing it ends the lock, and so does a kill."""
    handle = os.open(path, flags, 0o666)
    try:
        _lock(handle)
        yield handle
    finally:
        os.close(handle)


def _lock(handle: int) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _ends_well(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        return file.read(1) in (b"", b"\n")


def _write(handle: int, line: bytes) -> None:
    size, left = os.fstat(handle).st_size, line
    try:
        while left:
            left = left[os.write(handle, left) :]
    except OSError:  # a full disk may have taken a part
        os.ftruncate(handle, size)
        raise


def _fix(handle: int) -> None:
    size = os.fstat(handle).st_size
    rest = _after_last_break(handle, size)
    if not rest:
        return
    try:
        json.loads(rest)
    except ValueError:
        os.ftruncate(handle, size - len(rest))
    else:
        _write(handle, b"\n")


def _after_last_break(handle: int, size: int) -> bytes:
    rest = b""
    while size:
        start = max(0, size - _BLOCK)
        block, size = os.pread(handle, size - start, start), start
        rest = block + rest
        if b"\n" in block:
            return rest[rest.rindex(b"\n") + 1 :]
    return rest
