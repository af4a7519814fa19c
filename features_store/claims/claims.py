"""Who is extracting which trial: one small file a claim, kept fresh while its owner lives.

    .claims/<sha1>.json                  made by exactly one process (link, O_EXCL); touched every ttl/5
    .claims/<sha1>.json.<token>.0        the right to remove the claim with that token, made the same way

A claim is only removed by who holds the right to remove it, and only while it still has that token: so two
processes that find the same dead claim can never take away a fresh one. The age of a claim is measured by the clock
of the disk that it lies on, whatever the clocks of the hosts say. A process that was suspended for longer than its
claim lives finds that it was removed, or is another's, when it is about to write, and stops.
Tested by test_claims.py and tests/faults/kills.
"""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from ..disk.atomic import fenced_by
from ..disk.backends import LocalFiles, open_files
from ..disk.owner import Owner
from ..disk.scratch import remove_if_empty, sweep_scratch
from .claim_file import create, look

if TYPE_CHECKING:
    from ..store import FeatureStore


CLAIMS = ".claims"
TTL_S = 600.0
_BEATS_PER_TTL = 5


class ClaimLost(Exception):  # noqa: N818 - it says what has become of the claim
    """This process has lost its claim, and must not write any more; the message says who has it, as far as is known."""


@contextmanager
def claim(
    store_path: str | os.PathLike[str], trial: str, ttl_s: float = TTL_S, features: Collection[str] = ()
) -> Iterator[bool]:
    """True for the one process that may extract `trial` now; for the others it is False at once.

    `features`: what it is claimed for, which `claimed_features` tells the others.

    A claim whose owner died, or has not touched it for `ttl_s`, is taken over; what that owner would still write
    raises ClaimLost in it. A store behind a URL has no claims: there it is True for everybody, and runs share the work
    by `--shard`. Raises OSError where the store cannot be written.
    """
    files = open_files(store_path)
    if not isinstance(files, LocalFiles):
        yield True
        return
    path = _path(files, trial)
    token = uuid.uuid4().hex
    mine = create(path, token, features)
    if not mine:
        seen = look(path)
        if seen is not None and not seen.is_stale(ttl_s):
            seen.bring_to_today()
        else:
            if seen is not None:
                _remove(path, seen.token, ttl_s, only_stale=True)
            mine = create(path, token, features)
    if not mine:
        yield False
        return
    stop = threading.Event()
    heartbeat = threading.Thread(target=_beat, args=(path, token, ttl_s / _BEATS_PER_TTL, stop), daemon=True)
    heartbeat.start()
    try:
        with fenced_by(partial(_check, path, token)):
            yield True
    finally:
        stop.set()
        heartbeat.join()
        _remove(path, token, ttl_s, only_stale=False)
        remove_if_empty(path.parent)


def claimed_features(store_path: str | os.PathLike[str], trial: str) -> tuple[str, ...] | None:
    """What a trial is claimed for, empty where the claim does not say; None where nobody has claimed it."""
    files = open_files(store_path)
    seen = look(_path(files, trial)) if isinstance(files, LocalFiles) else None
    return seen.features if seen else None


def _path(files: LocalFiles, trial: str) -> Path:
    return files.root / CLAIMS / f"{hashlib.sha1(os.fsencode(trial), usedforsecurity=False).hexdigest()}.json"


def sweep_claims(root: Path, ttl_s: float = TTL_S) -> None:
    """Remove what dead runs have left: claims of trials that nobody will ask for, rights to claims that have ended."""
    folder = root / CLAIMS
    names = []
    with suppress(FileNotFoundError, NotADirectoryError):  # whoever has emptied it removes it
        names = sorted(os.listdir(folder))
    for path in (folder / name for name in names if name.endswith(".json")):
        seen = look(path)
        if seen is not None and seen.is_stale(ttl_s):
            _remove(path, seen.token, ttl_s, only_stale=True)
    for right in (folder / name for name in names if ".json." in name):
        name, token, _ = right.name.rsplit(".", 2)
        seen = look(right.with_name(name))
        # A token never comes back: without its claim the right is to nothing, whoever holds it.
        if seen is None or seen.token != token:
            right.unlink(missing_ok=True)
    remove_if_empty(folder)


def release_all(store: FeatureStore, owner: Owner) -> None:
    """Remove the claims and the scratch of a process that is known to have ended, or is about to.

    On another host nobody but the one who saw it die can know that before its claims run out.
    """
    if isinstance(store.files, LocalFiles):
        release_folder(store.files.root, owner)


def release_folder(root: Path, owner: Owner) -> None:
    """The same in any folder where things are claimed."""
    folder = root / CLAIMS
    for path in sorted(folder.glob("*.json")):
        seen = look(path)
        if seen is not None and seen.owner == owner:
            _remove(path, seen.token, TTL_S, only_stale=False)
    remove_if_empty(folder)
    sweep_scratch(root, ended=owner)


def _check(path: Path, token: str) -> None:
    """Raise ClaimLost unless the claim with this token is still there."""
    seen = look(path)
    if seen is None:
        raise ClaimLost("its claim is gone: taken over and finished by another process, or removed by hand")
    if seen.token != token:
        raise ClaimLost(f"its claim was taken over by {seen.owner or 'another process'}")


def _remove(path: Path, token: str, ttl_s: float, *, only_stale: bool) -> None:
    """Remove the claim with this token, unless another process has the right to, or it is no longer there."""
    if not _is_there(path, token, ttl_s, only_stale):
        return
    # Make the right to remove it. A holder of the right that died in between is not removed (that would need a right
    # again): the next number follows it.
    rights: list[Path] = []
    for number in count():
        right = path.with_name(f"{path.name}.{token}.{number}")
        rights.append(right)
        if create(right, token):
            break
        holder = look(right)
        if holder is None or not holder.is_stale(ttl_s):
            return
    try:
        if _is_there(path, token, ttl_s, only_stale):
            path.unlink(missing_ok=True)
    finally:
        # After the claim: whoever comes late finds no claim with this token any more.
        for right in rights:
            right.unlink(missing_ok=True)


def _is_there(path: Path, token: str, ttl_s: float, only_stale: bool) -> bool:
    seen = look(path)
    return seen is not None and seen.token == token and (not only_stale or seen.is_stale(ttl_s))


def _beat(path: Path, token: str, pause_s: float, stop: threading.Event) -> None:
    """Touch the claim every `pause_s` until `stop`."""
    while not stop.wait(pause_s):
        try:
            seen = look(path)
            if seen is None or seen.token != token:
                return  # lost: this process slept for longer than the claim lives
            os.utime(path)
        except OSError:
            continue  # a network disk that is away for a moment
