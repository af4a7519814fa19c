"""Scratch folders and files inside a store, named after the process that made them: dead ones can be swept.

Tested by tests/features_store/disk/test_faults.py and tests/faults/kills.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .atomic import write_new
from .owner import Owner
from .unwritable import store_removed

SCRATCH = ".tmp"
FOREIGN_AGE_S = 24 * 3600
_NAME = re.compile(r"(?P<host>.+)\.(?P<pid>\d+)\.(?P<started>\d+)\.(?P<token>[0-9a-f]+)")
_TRIES = 100


@contextmanager
def scratch_directory(root: Path) -> Iterator[Path]:
    """An empty folder in `<root>/.tmp`, removed at exit; `.tmp` goes with the last one."""
    with _scratch(root, Path.mkdir) as folder:
        yield folder


@contextmanager
def scratch_file(root: Path, content: bytes, *, flush: bool = True) -> Iterator[Path]:
    """A file with this content in `<root>/.tmp`, flushed to the disk, to be renamed or linked; gone at exit."""
    with _scratch(root, lambda path: write_new(path, content, flush=flush)) as file:
        yield file


@contextmanager
def system_scratch() -> Iterator[Path]:
    """An empty folder where the system keeps such, removed at exit."""
    with tempfile.TemporaryDirectory(prefix="avfuse-") as folder:
        yield Path(folder)


def sweep_scratch(root: Path) -> list[str]:
    """Remove the scratch of dead runs: owner gone on this host, or 24 h untouched. Returns names."""
    folder = root / SCRATCH
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    dead = [name for name in names if _is_left_over(folder / name)]
    for name in dead:
        _remove(folder / name)
    remove_if_empty(folder)
    return dead


def remove_scratch_of(owner: Owner, root: Path) -> None:
    """Remove the scratch of a process that is known to have ended, or is about to."""
    folder = root / SCRATCH
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
        if name.startswith(_prefix(owner)):
            _remove(folder / name)
    remove_if_empty(folder)


def make_folder(folder: Path) -> None:
    """Make a folder of the store that other processes make and remove meanwhile; the caller tries until it stays.

    Raises StoreUnwritable where the store itself is store_removed: it must not come back as an empty shell.
    """
    try:
        folder.mkdir()
    except FileExistsError:
        return
    except FileNotFoundError:
        raise store_removed(folder.parent) from None


def remove_if_empty(folder: Path) -> None:
    """Remove a folder unless something is in it, or another process was faster."""
    try:
        folder.rmdir()
    except OSError:
        return


@contextmanager
def _scratch(root: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    path = _make(root, make)
    try:
        yield path
    finally:
        _remove(path)
        remove_if_empty(path.parent)


def _make(root: Path, make: Callable[[Path], None]) -> Path:
    for _ in range(_TRIES):
        path = _new_path(root)
        make_folder(path.parent)
        try:
            make(path)
        except (FileNotFoundError, FileExistsError):
            continue  # another process found `.tmp` empty and removed it in between, or has that very name
        except OSError:
            _remove(path)
            remove_if_empty(path.parent)
            raise
        return path
    raise OSError(f"{path.parent} vanishes as soon as it is made; is another program cleaning the store?")


def _new_path(root: Path) -> Path:
    return root / SCRATCH / f"{_prefix(Owner.current())}{uuid.uuid4().hex}"


def _prefix(owner: Owner) -> str:
    return f"{owner.host}.{owner.pid}.{owner.started}."


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # as with a folder: the next run sweeps what cannot be removed now
            path.unlink()


def _is_left_over(path: Path) -> bool:
    match = _NAME.fullmatch(path.name)
    owner = match and Owner(match["host"], int(match["pid"]), int(match["started"]))
    if owner and owner.host == Owner.current().host:
        return owner.is_dead()
    return time.time() - _last_touched(path) > FOREIGN_AGE_S


def _last_touched(path: Path) -> float:
    """Latest modification of a file, or of a folder and anything below it, s since the epoch."""
    below = [Path(here, name) for here, folders, files in os.walk(path) for name in folders + files]
    times_s = [0.0]
    for each in (path, *below):
        with suppress(FileNotFoundError):  # its owner lives and is removing it
            times_s.append(os.stat(each).st_mtime)
    return max(times_s)
