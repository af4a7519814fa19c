"""Files that are whole or not there, whatever happens: the local file system's half of the store.

A process that has slept for longer than its claim lives (a suspended job, a laptop's lid) must not write over what
the next owner has written since: under `fenced_by` nothing is named or removed unless the claim is still held.

Tested by tests/features_store/disk/test_faults.py and tests/faults/kills.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from .unwritable import naming, naming_place

# What file systems without hard links answer to `link`; EXDEV: those without any from one folder to another (AFS).
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EINVAL, errno.EXDEV)
_FENCES: ContextVar[tuple[Callable[[], None], ...]] = ContextVar("fences", default=())


@contextmanager
def fenced_by(check: Callable[[], None]) -> Iterator[None]:
    """Until the end, this thread calls `check` last thing before it changes a file; it raises where it may not."""
    before = _FENCES.get()
    _FENCES.set((*before, check))
    try:
        yield
    finally:
        _FENCES.set(before)


def check_fence() -> None:
    """Raise claims.ClaimLost where this thread works under a claim that it has lost."""
    for check in _FENCES.get():
        check()


@contextmanager
def whole_file(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """A path beside `path` to write to: it gets that name at the end, and is removed where the writing failed.

    Without `replace` a file that is there already, or appears meanwhile, is left alone. Nothing is flushed here.
    """
    temporary = path.with_name(f".{os.getpid()}.{os.urandom(6).hex()}")
    try:
        with naming_place(path, temporary):
            yield temporary
            check_fence()
            if replace:
                temporary.replace(path)
            else:
                link_file(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_file(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write beside, flush to the disk, rename over: never half a file. Raises OSError naming the file.

    Without `replace` a file that is there already, or appears meanwhile, is left alone.
    """
    with naming(path):
        with whole_file(path, replace=replace) as temporary:
            write_new(temporary, content)
        fsync_path(path.parent)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a file of a run. Raises OSError naming it."""
    replace_file(path, (json.dumps(content, indent=1) + "\n").encode())


def write_new(path: Path, content: bytes, *, flush: bool = True) -> None:
    """Write a file that is not there yet, and flush it to the disk."""
    with path.open("xb") as file:
        file.write(content)
        if flush:
            file.flush()
            os.fsync(file.fileno())


def link_file(temporary: Path, path: Path) -> None:
    """Give a file its name unless there is one; without hard links two writers at once both write it.

    Raises OSError: EXDEV where the names lie in two folders of which that is true, or on two disks.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    except OSError as error:
        in_another_folder = error.errno == errno.EXDEV and temporary.parent != path.parent
        if in_another_folder or error.errno not in NO_LINKS:
            raise
        temporary.replace(path)


def check_link(path: Path) -> None:
    """Raise ValueError where a path, or a folder on the way to it, is a link to nowhere: nothing can be made there."""
    for each in (path.absolute(), *path.absolute().parents):
        if each.is_symlink() and not each.exists():
            raise ValueError(f"{each} is a link to {os.readlink(each)}, which is not there; make it, or name another")


def remove_file(path: Path) -> None:
    """Remove a file, if it is there."""
    check_fence()
    path.unlink(missing_ok=True)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it, as far as that can be done."""
    check_fence()
    shutil.rmtree(folder, ignore_errors=True)


def fsync_tree(folder: Path) -> None:
    """Flush every file and folder below, and the folder itself, to the disk."""
    for parent, _, files in os.walk(folder, topdown=False):
        for name in files:
            fsync_path(Path(parent, name))
        fsync_path(Path(parent))


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


def sha256_of(path: Path) -> str:
    """Hash of a file's content, hexadecimal. Raises OSError when it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
