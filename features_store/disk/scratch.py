"""Scratch folders and files inside a store, named after the process that made them: dead ones can be swept.

Tested by tests/features_store/disk/test_faults.py and tests/faults/kills.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path

from .atomic import write_new
from .owner import Owner
from .unwritable import store_removed

SCRATCH = ".tmp"
FOREIGN_AGE_S = 24 * 3600
_NAME = re.compile(r"(?P<host>.+)\.(?P<pid>\d+)\.(?P<started>\d+)\.(?P<token>[0-9a-f]+)")
_TRIES = 100


@contextmanager
def scratch_directory(root: Path, make: Callable[[Path], None] = Path.mkdir) -> Iterator[Path]:
    """An empty folder in `<root>/.tmp`, or what `make` makes, removed at exit; `.tmp` goes with the last one.

    Raises OSError where it cannot be made.
    """
    owner = Owner.current()
    for _ in range(_TRIES):
        path = root / SCRATCH / f"{owner.host}.{owner.pid}.{owner.started}.{uuid.uuid4().hex}"
        make_folder(path.parent)
        try:
            make(path)
            break
        except (FileNotFoundError, FileExistsError):
            continue  # another process found `.tmp` empty and removed it in between, or has that very name
        except OSError:
            _remove(path)
            raise
    else:
        raise OSError(f"{path.parent} vanishes as soon as it is made; is another program cleaning the store?")
    try:
        yield path
    finally:
        _remove(path)


def scratch_file(root: Path, content: bytes, *, flush: bool = True) -> AbstractContextManager[Path]:
    """A file with this content in `<root>/.tmp`, flushed to the disk, to be renamed or linked; removed at exit."""
    return scratch_directory(root, partial(write_new, content=content, flush=flush))


def sweep_scratch(root: Path, ended: Owner | None = None) -> list[str]:
    """Remove the scratch of dead runs: its owner has ended on this host, or 24 h untouched. Returns names.

    With `ended`, a process that is known to have ended or is about to: remove its scratch alone.
    """
    folder = root / SCRATCH
    names, removed = [], []
    with suppress(FileNotFoundError, NotADirectoryError):  # whoever has emptied it removes it
        names = sorted(os.listdir(folder))
    for name in names:
        match = _NAME.fullmatch(name)
        owner = Owner(match["host"], int(match["pid"]), int(match["started"])) if match else None
        if ended:
            is_left_over = owner == ended
        elif owner and owner.host == Owner.current().host:
            is_left_over = owner.is_dead()
        else:
            is_left_over = time.time() - _last_touched(folder / name) > FOREIGN_AGE_S
        if is_left_over:
            _remove(folder / name)
            removed.append(name)
    remove_if_empty(folder)
    return removed


def make_folder(folder: Path) -> None:
    """Make a folder of the store that other processes make and remove meanwhile; the caller tries until it stays.

    Raises StoreUnwritable where the store itself was removed: it must not come back as an empty shell.
    """
    try:
        folder.mkdir()
    except FileExistsError:
        return
    except FileNotFoundError:
        raise store_removed(folder.parent) from None


def remove_if_empty(folder: Path) -> None:
    """Remove a folder unless something is in it, or another process was faster."""
    with suppress(OSError):
        folder.rmdir()


def _remove(path: Path) -> None:
    """Remove a scratch folder or file, and `.tmp` with the last one."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # as with a folder: the next run sweeps what cannot be removed now
            path.unlink()
    remove_if_empty(path.parent)


def _last_touched(path: Path) -> float:
    """Latest modification of a file, or of a folder and anything below it, s since the epoch."""
    below = [Path(parent, name) for parent, folders, files in os.walk(path) for name in folders + files]
    times_s = [0.0]
    for each in (path, *below):
        with suppress(FileNotFoundError):  # its owner lives and is removing it
            times_s.append(os.stat(each).st_mtime)
    return max(times_s)
