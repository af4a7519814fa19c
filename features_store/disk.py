"""Files that are whole or not there, whatever happens: the local file system's half of the store.

Tested by tests/features_store/test_faults.py.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What file systems without hard links answer to `link`.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)


def replace_file(path: Path, content: bytes) -> None:
    """Write beside, flush to the disk, rename over: never half a file. Raises OSError naming the file."""
    try:
        with _beside(path) as temporary:
            _write(temporary, content)
            temporary.replace(path)
        fsync_path(path.parent)
    except OSError as error:  # a full disk names no file, and the temporary one's name tells nobody anything
        raise OSError(error.errno, error.strerror, str(path)) from error


def create_file(path: Path, content: bytes) -> None:
    """The same where there is no file yet; one that is there, or comes meanwhile, is left alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        return
    with _beside(path) as temporary:
        _write(temporary, content)
        _link(temporary, path)
    fsync_path(path.parent)


def fsync_tree(folder: Path) -> None:
    """Flush every file and folder below, and the folder itself, to the disk."""
    for here, _, files in os.walk(folder, topdown=False):
        for name in files:
            fsync_path(Path(here, name))
        fsync_path(Path(here))


def fsync_path(path: Path) -> None:
    """Flush a file or folder to the disk; file systems that cannot flush a folder are let pass."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f".{os.getpid()}.{os.urandom(6).hex()}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _link(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        temporary.replace(path)
