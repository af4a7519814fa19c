"""How a process ends at its n-th step on the file system, or is refused all steps from there on."""

import errno
import json
import os
import resource
import signal
import sys
import threading
from dataclasses import dataclass, field
from typing import Any

TO_WRITE = os.O_WRONLY | os.O_RDWR
MAKING = {"open", "os.mkdir", "os.link", "os.truncate"}
CHANGING = MAKING | {"os.rename", "os.remove", "os.rmdir", "os.utime"}


@dataclass
class Steps:
    """Counts the changes that this process makes to the disk; opening a file counts below `root` only.

    At step `at`: `alone` ends this process before it, `session` also its children, `cut` ends it when the file that
    is opened then has `keep` bytes. From step `at` on: `full` refuses to make anything, `locked` refuses all.
    `note`: a file that tells every step.
    """

    root: str
    at: int = 0
    how: str = "alone"
    keep: int = 0
    note: str = ""
    seen: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)  # zarr writes in threads

    def begin(self) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python turns it into an error otherwise
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        handle = os.open(self.note or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        sys.addaudithook(lambda event, arguments: self.step(event, arguments, handle))

    def step(self, event: str, arguments: tuple[Any, ...], handle: int) -> None:
        if event not in CHANGING or (event == "open" and not self.opens_to_write(*arguments)):
            return
        with self.lock:
            self.seen += 1
            os.write(handle, f"{json.dumps(event)}\n".encode())
            if self.seen >= self.at > 0:
                self.end(event, str(arguments[0]))

    def opens_to_write(self, path: object, _mode: object, flags: int) -> bool:
        return isinstance(path, str) and path.startswith(self.root) and bool(flags & TO_WRITE)

    def end(self, event: str, path: str) -> None:
        if self.how in ("alone", "session"):
            (os.kill if self.how == "alone" else os.killpg)(os.getpid(), signal.SIGKILL)
        elif self.how == "cut":
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.keep, self.keep))
        elif self.how == "locked":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        elif event in MAKING:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def arm(**death) -> None:
    """From now on; without a `root` nothing happens."""
    if death:
        Steps(**death).begin()
