"""One file of a claim, or of a right to remove one: made whole by exactly one process, and read by all.

Tested by tests/features_store/claims/test_claim_file.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ..disk.atomic import NO_LINKS
from ..disk.owner import Owner
from ..disk.scratch import make_folder, scratch_file
from ..disk.unwritable import naming

_TRIES = 100
_HALF_WRITTEN_S = 10.0
_FUTURE_S = 2.0


@dataclass(frozen=True)
class Seen:
    """A file as found: whose, which, last touched when, for what. `owner` None: half written, or unreadable."""

    path: Path
    owner: Owner | None
    token: str
    touched_s: float
    features: tuple[str, ...] = ()

    def is_stale(self, ttl_s: float) -> bool:
        """Whether its owner died, or has not touched it for so long."""
        if self.owner is None:  # written at once, so what stays unreadable was left by a kill
            return self._age_s() > min(ttl_s, _HALF_WRITTEN_S)
        return self.owner.is_dead() or self._age_s() > ttl_s

    def bring_to_today(self) -> None:
        """Touch a file from the future: the clock went back, and it would seem fresh until that time comes."""
        if self._age_s() < -_FUTURE_S:
            with suppress(OSError):  # another user's file
                os.utime(self.path)

    def _age_s(self) -> float:
        """By the clock of the disk, which all hosts share."""
        with scratch_file(self.path.parents[1], b"", flush=False) as probe:
            return probe.stat().st_mtime - self.touched_s


def create(path: Path, token: str, features: Collection[str] = ()) -> bool:
    """Make a file that says who made it; False where there is one. It appears whole, where links can be made.

    Raises OSError naming the file, also where its folder is removed again and again.
    """
    content = json.dumps({**asdict(Owner.current()), "token": token, "features": list(features)}).encode()
    with naming(path), scratch_file(path.parents[1], content, flush=False) as temporary:
        for _ in range(_TRIES):
            make_folder(path.parent)
            try:
                os.link(temporary, path)
                return True
            except FileExistsError:
                # A network disk may have made the link and lost its answer.
                return temporary.stat().st_nlink > 1
            except FileNotFoundError:
                continue  # another process found `.claims` empty and removed it in between
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
            with suppress(FileNotFoundError):
                return _create_alone(path, content)
    raise OSError(f"{path.parent} vanishes as soon as it is made; is another program cleaning the store?")


def look(path: Path) -> Seen | None:
    """What the file says; None where there is none."""
    try:
        touched_s = path.stat().st_mtime
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        claim = json.loads(content)
        owner = Owner(str(claim["host"]), int(claim["pid"]), int(claim["started"]))
        return Seen(path, owner, str(claim["token"]), touched_s, tuple(map(str, claim.get("features", ()))))
    except (ValueError, KeyError, TypeError):
        return Seen(path, None, "unreadable", touched_s)  # just being written, or cut off by a full disk


def _create_alone(path: Path, content: bytes) -> bool:
    """Without hard links: others may see the file before it is written."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
    except OSError:  # a full disk: half a claim would keep everybody off the trial
        path.unlink(missing_ok=True)
        raise
    return True
