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

from .unwritable import naming

# What file systems without locks answer; a folder of a network disk cannot be locked either (EBADF).
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EBADF)
_BLOCK = 1 << 16


def append_line(path: Path, line: bytes) -> None:
    """Append one line whole or not at all. Raises OSError naming the file."""
    with naming(path), locked(path, os.O_RDWR | os.O_APPEND | os.O_CREAT) as handle:
        _fix_end(handle)
        _write(handle, line)


def fix_lines(path: Path) -> None:
    """Cut off half a line at the end, or end a whole one; nothing happens where there is no file."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        last = file.read(1)
    if last not in (b"", b"\n"):
        with naming(path), locked(path, os.O_RDWR | os.O_APPEND) as handle:
            _fix_end(handle)


@contextmanager
def locked(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Open a file or folder, and hold it against other processes that ask for it, where the disk can.

    Closing it ends the lock, and so does a kill.
    """
    handle = os.open(path, flags, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield handle
    finally:
        os.close(handle)


def _write(handle: int, line: bytes) -> None:
    size, left = os.fstat(handle).st_size, line
    try:
        while left:
            left = left[os.write(handle, left) :]
    except OSError:  # a full disk may have taken a part
        os.ftruncate(handle, size)
        raise


def _fix_end(handle: int) -> None:
    """Cut off what follows the last line break, or end it where it is a whole line."""
    size = begin = os.fstat(handle).st_size
    rest = b""
    while begin and b"\n" not in rest:
        begin, end = max(0, begin - _BLOCK), begin
        rest = os.pread(handle, end - begin, begin) + rest
    rest = rest.rpartition(b"\n")[2]
    if not rest:
        return
    try:
        json.loads(rest)
    except ValueError:
        os.ftruncate(handle, size - len(rest))
    else:
        _write(handle, b"\n")
