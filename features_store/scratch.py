"""Scratch folders inside a store, named after the process that made them, so that dead ones can be swept.

Tested by tests/features_store/test_faults.py.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .owner import Owner

SCRATCH = ".tmp"
FOREIGN_AGE_S = 24 * 3600
_NAME = re.compile(r"(?P<host>.+)\.(?P<pid>\d+)\.(?P<started>\d+)\.(?P<token>[0-9a-f]+)")
_TRIES = 100


@contextmanager
def scratch_directory(root: Path) -> Iterator[Path]:
    """An empty folder in `<root>/.tmp`, removed at exit; `.tmp` goes with the last one."""
    folder = _make(root / SCRATCH)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        remove_if_empty(root / SCRATCH)


@contextmanager
def system_scratch() -> Iterator[Path]:
    """An empty folder where the system keeps such, removed at exit."""
    with tempfile.TemporaryDirectory(prefix="avfuse-") as folder:
        yield Path(folder)


def sweep(root: Path) -> list[str]:
    """Remove the scratch folders of dead runs: owner gone on this host, or 24 h untouched. Returns names."""
    folder = root / SCRATCH
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    dead = [name for name in names if _is_left_over(folder / name)]
    for name in dead:
        shutil.rmtree(folder / name, ignore_errors=True)
    remove_if_empty(folder)
    return dead


def make_folder(folder: Path) -> None:
    """Make a folder that other processes make and remove meanwhile; the caller tries until it stays."""
    # `exist_ok` still raises where the folder was there and is gone a moment later.
    with suppress(FileExistsError):
        folder.mkdir(parents=True, exist_ok=True)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder unless something is in it, or another process was faster."""
    try:
        folder.rmdir()
    except OSError:
        return


def _make(parent: Path) -> Path:
    owner = Owner.current()
    folder = parent / f"{owner.host}.{owner.pid}.{owner.started}.{uuid.uuid4().hex}"
    for _ in range(_TRIES):
        make_folder(parent)
        try:
            folder.mkdir()
        except FileNotFoundError:
            continue  # another process found `.tmp` empty and removed it in between
        return folder
    raise OSError(f"{parent} vanishes as soon as it is made; is another program cleaning the store?")


def _is_left_over(folder: Path) -> bool:
    match = _NAME.fullmatch(folder.name)
    owner = match and Owner(match["host"], int(match["pid"]), int(match["started"]))
    if owner and owner.host == Owner.current().host:
        return owner.is_dead()
    return time.time() - _last_touched(folder) > FOREIGN_AGE_S


def _last_touched(folder: Path) -> float:
    """Latest modification of a folder or of anything below it, s since the epoch."""
    latest = 0.0
    for here, _, files in os.walk(folder):
        for path in (here, *(os.path.join(here, file) for file in files)):
            try:
                latest = max(latest, os.stat(path).st_mtime)
            except FileNotFoundError:
                continue  # its owner lives and is removing it
    return latest
