"""Who is extracting which trial: one small file a claim, kept fresh while its owner lives.

    .claims/<sha1>.json                  made by exactly one process (O_EXCL); its time is touched every ttl/5
    .claims/<sha1>.json.<token>.0        the right to remove the claim with that token, made the same way

A claim is only removed by who holds the right to remove it, and only while it still bears that token: so two
processes that find the same dead claim can never take away a fresh one. Tested by test_claims.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

from .files import LocalFiles, open_files
from .owner import Owner
from .scratch import make_folder, remove_if_empty

CLAIMS = ".claims"
_BEATS_PER_TTL = 5
_TRIES = 100
_HALF_WRITTEN_S = 10.0


@dataclass(frozen=True)
class _Seen:
    """A claim as found: who, which one, how long untouched. `owner` None: half written, or unreadable."""

    owner: Owner | None
    token: str
    age_s: float

    def is_stale(self, ttl_s: float) -> bool:
        if self.owner is None:  # written at once, so what stays unreadable was left by a kill
            return self.age_s > min(ttl_s, _HALF_WRITTEN_S)
        return self.age_s > ttl_s or self.owner.is_dead()


@contextmanager
def claim(store_path: str | os.PathLike[str], trial: str, ttl_s: float = 600) -> Iterator[bool]:
    """True for the one process that may extract `trial` now; the others are told False at once.

    A claim whose owner died, or has not touched it for `ttl_s`, is taken over. A store behind a URL has no
    claims: there everybody is told True, and runs share the work by `--shard`. Raises OSError where the store
    cannot be written.
    """
    files = open_files(store_path)
    if not isinstance(files, LocalFiles):
        yield True
        return
    path = files.root / CLAIMS / f"{hashlib.sha1(os.fsencode(trial), usedforsecurity=False).hexdigest()}.json"
    token = uuid.uuid4().hex
    if not _take(path, token, ttl_s):
        yield False
        return
    with _heartbeat(path, token, ttl_s):
        try:
            yield True
        finally:
            _remove(path, token, ttl_s, only_stale=False)
            remove_if_empty(path.parent)


def _take(path: Path, token: str, ttl_s: float) -> bool:
    if _create(path, token):
        return True
    seen = _look(path)
    if seen is not None:
        if not seen.is_stale(ttl_s):
            return False
        _remove(path, seen.token, ttl_s, only_stale=True)
    return _create(path, token)


def _remove(path: Path, token: str, ttl_s: float, *, only_stale: bool) -> None:
    """Remove the claim with this token, unless another process has the right to, or it is no longer there."""
    rights = _right_to_remove(path, token, ttl_s)
    if rights is None:
        return
    try:
        seen = _look(path)
        if seen is not None and seen.token == token and (not only_stale or seen.is_stale(ttl_s)):
            path.unlink(missing_ok=True)
    finally:
        # After the claim: who comes late finds no claim with this token any more.
        for right in rights:
            right.unlink(missing_ok=True)


def _right_to_remove(path: Path, token: str, ttl_s: float) -> list[Path] | None:
    """The files of the right, the last one made here; None where a living process has it.

    A holder that died in between is not removed (that would need a right again): the next number follows it.
    """
    rights: list[Path] = []
    for number in count():
        right = path.with_name(f"{path.name}.{token}.{number}")
        rights.append(right)
        if _create(right, token):
            return rights
        seen = _look(right)
        if seen is None or not seen.is_stale(ttl_s):
            return None
    return None


def _create(path: Path, token: str) -> bool:
    """Make a file that says who made it; False where there is one."""
    content = json.dumps({**asdict(Owner.current()), "token": token}).encode()
    for _ in range(_TRIES):
        make_folder(path.parent)
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        except FileNotFoundError:
            continue  # another process found `.claims` empty and removed it in between
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
        except OSError:  # a full disk: half a claim would keep everybody off the trial
            path.unlink(missing_ok=True)
            raise
        return True
    raise OSError(f"{path.parent} vanishes as soon as it is made; is another program cleaning the store?")


def _look(path: Path) -> _Seen | None:
    try:
        age_s = time.time() - path.stat().st_mtime
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        found = json.loads(content)
        owner = Owner(str(found["host"]), int(found["pid"]), int(found["started"]))
        return _Seen(owner, str(found["token"]), age_s)
    except (ValueError, KeyError, TypeError):
        return _Seen(None, "unreadable", age_s)  # just being written, or cut off by a full disk


@contextmanager
def _heartbeat(path: Path, token: str, ttl_s: float) -> Iterator[None]:
    """Touch the claim every ttl/5 until the end."""
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, token, ttl_s / _BEATS_PER_TTL, stop), daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()


def _beat(path: Path, token: str, pause_s: float, stop: threading.Event) -> None:
    while not stop.wait(pause_s):
        try:
            seen = _look(path)
            if seen is None or seen.token != token:
                return  # lost: this process slept for longer than the claim lives
            os.utime(path)
        except OSError:
            continue  # a network disk that is away for a moment
