"""Which process is training in a run's folder: one at a time, by the same claims that the store has.

    RUN/.claims/…     there while a process trains in RUN; that of a dead one is taken over

Tested by tests/fusion/test_grid.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..features_store.claim_file import look
from ..features_store.claims import CLAIMS, TTL_S, claim

_WHAT = "run"


@contextmanager
def in_hand(folder: Path) -> Iterator[bool]:
    """True for the one process that may train in `folder` now; the others are told False at once.

    Makes the folder. Raises OSError where it cannot be written; inside, whatever is to be written to it raises
    ClaimLost once another process has taken the folder over.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            mine = stack.enter_context(claim(folder, _WHAT))
        except OSError as error:
            # Nobody knows the claim's file; this one would have been the next.
            path = str(folder / "fold.json")
            raise type(error)(error.errno, error.strerror or str(error), path) from error
        yield mine


def is_in_hand(folder: Path) -> bool:
    """Whether a living process, maybe this one, trains in a folder now."""
    found = [look(path) for path in sorted((folder / CLAIMS).glob("*.json"))]
    return any(seen is not None and not seen.is_stale(TTL_S) for seen in found)
