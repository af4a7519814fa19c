"""What a process leaves in a store when it ends without unwinding: its claims, its scratch.

Tested by tests/features_store/test_leaving.py.
"""

from __future__ import annotations

import os
from pathlib import Path

from .claim_file import look
from .claims import CLAIMS, TTL_S, _remove
from .files import LocalFiles
from .owner import Owner
from .scratch import SCRATCH, remove_if_empty
from .scratch import _remove as _remove_path
from .store import FeatureStore


def leave(store: FeatureStore, owner: Owner) -> None:
    """Remove the claims and the scratch of a process that is known to have ended, or is about to.

    On another host nobody but the one who saw it die can know that before its claims run out.
    """
    if isinstance(store.files, LocalFiles):
        leave_folder(store.files.root, owner)


def leave_folder(root: Path, owner: Owner) -> None:
    """The same in any folder where things are claimed."""
    _remove_claims(root / CLAIMS, owner)
    _remove_scratch(root / SCRATCH, owner)


def _remove_claims(folder: Path, owner: Owner) -> None:
    for path in sorted(folder.glob("*.json")):
        seen = look(path)
        if seen is not None and seen.owner == owner:
            _remove(path, seen.token, TTL_S, only_stale=False)
    remove_if_empty(folder)


def _remove_scratch(folder: Path, owner: Owner) -> None:
    names = os.listdir(folder) if folder.is_dir() else []
    for name in names:
        if name.startswith(f"{owner.host}.{owner.pid}.{owner.started}."):
            _remove_path(folder / name)
    remove_if_empty(folder)
