"""Who holds a claim or a scratch folder: a process, never confused with a later one of the same number.

Tested by tests/features_store/claims/test_claims.py.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_DEAD_STATES = "ZXx"


@dataclass(frozen=True)
class Owner:
    """A process: `host` (a space of process numbers), `pid`, `started` (ticks since boot; 0: unknown)."""

    host: str
    pid: int
    started: int

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.rsplit('-', 2)[0]}"

    @classmethod
    def current(cls) -> Owner:
        """This process."""
        pid = os.getpid()
        return cls(_host(), pid, _state(pid)[1])

    def is_dead(self) -> bool:
        """Whether the process is known to have ended; of a process on another host that is never known."""
        if self.host != _host():
            return False
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:
            pass  # it lives, under another user
        state, started = _state(self.pid)
        if state in _DEAD_STATES:
            return True
        # A number is given again after a process ends; the second holder began at another time.
        return bool(self.started and started and self.started != started)


def _state(pid: int) -> tuple[str, int]:
    """State letter and start of a process, from /proc; ("?", 0) where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return "?", 0
    # The command's name stands in parentheses and may itself hold some.
    fields = text.rpartition(")")[2].split()
    return (fields[0], int(fields[19])) if len(fields) > 19 else ("?", 0)


@cache
def _host() -> str:
    """The host's name, boot and process namespace: containers may share a name, not process numbers."""
    import socket  # noqa: PLC0415 - help does without it

    name = re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname())[:64]
    boot = namespace = "0"
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with suppress(OSError):
        namespace = re.sub(r"\D", "", str(Path("/proc/self/ns/pid").readlink()))
    return f"{name}-{boot[:8]}-{namespace}"
