"""When it is the store that cannot be written, and not a video that cannot be read.

Tested by tests/features_store/disk/test_unwritable.py.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Only a disk that is written to answers so; reading a video never does.
_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.ENOMEM}


class StoreUnwritable(OSError):  # noqa: N818 - it says what the store is
    """The store is full, gone, replaced or locked: every further video would fail the same way."""


def store_removed(root: Path) -> StoreUnwritable:
    """What to raise where a store, or what was just written into it, is no longer there."""
    return StoreUnwritable(errno.ENOENT, "the store, or a part of it, was removed while it was written", str(root))


@contextmanager
def as_store_error(location: str) -> Iterator[None]:
    """Whatever the system says here is the store's fault: an OSError becomes StoreUnwritable, with a path in it."""
    try:
        yield
    except StoreUnwritable:
        raise
    except OSError as error:
        raise StoreUnwritable(error.errno, error.strerror or str(error), error.filename or location) from error


def is_stores_fault(error: OSError, root: Path | None) -> bool:
    """Whether an error is the store's: it says so, tells of a full disk, or names a file below `root`."""
    if isinstance(error, StoreUnwritable) or error.errno in _OF_WRITING:
        return True
    named = [os.path.abspath(os.fsdecode(name)) for name in (error.filename, error.filename2) if _is_path(name)]
    return root is not None and any(Path(name).is_relative_to(root.absolute()) for name in named)


def _is_path(name: object) -> bool:
    return isinstance(name, (str, bytes))
