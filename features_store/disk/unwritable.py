"""Errors of the disk: which file they name, and whether they are the store's fault or one video's.

Tested by tests/features_store/disk/test_unwritable.py.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Only a disk that is being written to answers so; reading a video never does.
_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.ENOMEM}


class StoreUnwritable(OSError):  # noqa: N818 - it says what the store is
    """The store is full, removed, replaced or locked: every further video would fail the same way."""


def store_removed(root: Path) -> StoreUnwritable:
    """What to raise where a store, or what was just written into it, is no longer there."""
    return StoreUnwritable(errno.ENOENT, "the store, or a part of it, was removed while it was written", str(root))


@contextmanager
def as_store_error(location: str) -> Iterator[None]:
    """Every OSError within is the store's fault: raises StoreUnwritable in its place, with a path in it."""
    try:
        yield
    except StoreUnwritable:
        raise
    except OSError as error:
        raise StoreUnwritable(error.errno, error.strerror or str(error), error.filename or location) from error


def is_stores_fault(error: OSError, root: Path | None) -> bool:
    """Whether an error is the store's: it says so, means a full disk, or names a file below `root`."""
    if isinstance(error, StoreUnwritable) or error.errno in _OF_WRITING:
        return True
    if root is None:
        return False
    paths = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
    return any(Path(os.path.abspath(path)).is_relative_to(root.absolute()) for path in paths)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Every OSError names this file: that of a full disk names none, and a temporary file's name helps nobody.

    Raises an OSError of the same kind in its place.
    """
    try:
        yield
    except OSError as error:
        raise type(error)(error.errno, error.strerror or str(error), str(path)) from error


@contextmanager
def naming_place(place: Path, temporary: Path | None = None) -> Iterator[None]:
    """An OSError that names no file, as that of a full disk, or the temporary one, names this place.

    Raises one of the same kind in its place; one that names another file passes as it is.
    """
    try:
        yield
    except OSError as error:
        names_another = error.filename is not None and str(error.filename) != str(temporary)
        if names_another or error.errno is None:
            raise
        # The system's words, not what a library has made of them.
        raise type(error)(error.errno, os.strerror(error.errno), str(place)) from error
