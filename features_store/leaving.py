"""What a process leaves in a store when it ends without unwinding: its claims, its scratch.

Tested by tests/features_store/test_leaving.py.
"""

from __future__ import annotations

from pathlib import Path

from .claims import remove_claims_of
from .files import LocalFiles
from .owner import Owner
from .scratch import remove_scratch_of
from .store import FeatureStore


def leave(store: FeatureStore, owner: Owner) -> None:
    """Remove the claims and the scratch of a process that is known to have ended, or is about to.

    On another host nobody but the one who saw it die can know that before its claims run out.
    """
    if isinstance(store.files, LocalFiles):
        leave_folder(store.files.root, owner)


def leave_folder(root: Path, owner: Owner) -> None:
    """The same in any folder where things are claimed."""
    remove_claims_of(owner, root)
    remove_scratch_of(owner, root)
