"""SIGTERM and SIGINT end a run within 10 s: what is left is named, what is done is safe, the exit code is 143 or 130.

    before the first job      the command ends at once, whatever it is doing
    while jobs are done       they are asked to stop, and get 7 s for that
    a second signal, or 7 s   the process ends without them, its children with it

Tested by tests/batch/test_signals.py and tests/faults/test_stop.py.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import click

from ..shell.text import counted, preview

LAST_RESORT_S = 7.0
_NAMED = 20
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Terminated(click.ClickException):
    """The run was stopped by a signal: one line, and the exit code that shells give for it."""

    exit_code = 128 + signal.SIGTERM


class Interrupted(Terminated):
    """The same, by Ctrl-C."""

    exit_code = 128 + signal.SIGINT


class StopRequest:
    """Whether a run is to stop, and what is left of it: `left` are the names of the jobs that have not ended.

    `gentle`: a signal is noted, and not raised, since there are jobs to be stopped. `wake` is called then.
    `on_abandon` is called before the process ends without its jobs.
    """

    def __init__(self, noun: str) -> None:
        import psutil  # noqa: F401, PLC0415 - here, since no --help comes here and a handler should load nothing

        self.left: list[str] = []
        self.gentle = False
        self.wake: Callable[[], None] = lambda: None
        self.on_abandon: Callable[[], None] = lambda: None
        self._noun = noun
        self._signal: signal.Signals | None = None
        self._abandoned = False

    def is_set(self) -> bool:
        """Whether a signal has come."""
        return self._signal is not None

    def raise_if_set(self) -> None:
        """Raise Terminated where a signal has come."""
        if self._signal is not None:
            kind = Interrupted if self._signal is signal.SIGINT else Terminated
            raise kind(self._line(self._signal))

    def receive(self, number: int, _: FrameType | None = None) -> None:
        """Take a signal."""
        if self._signal is not None:
            import psutil  # noqa: PLC0415

            # End without waiting for anything that hangs: a network in a long call, a disk that does not answer.
            try:
                if not self._abandoned:
                    self._abandoned = True
                    click.echo(f"Error: {self._line(self._signal)}", err=True)
                    with suppress(OSError):
                        self.on_abandon()
                    for process in psutil.Process().children(recursive=True):
                        with suppress(psutil.NoSuchProcess):
                            process.kill()
                    sys.stdout.flush()
            finally:
                os._exit(128 + self._signal)
        self._signal = signal.Signals(number)
        if not self.gentle:
            self.raise_if_set()
        signal.setitimer(signal.ITIMER_REAL, LAST_RESORT_S)
        self.wake()

    def _line(self, number: signal.Signals) -> str:
        if not self.left:
            return f"stopped by {number.name} before anything was begun; run again to begin"
        to_do = counted(len(self.left), self._noun.removesuffix("s"))
        left = f"stopped by {number.name} with {to_do} to do: {preview(self.left, _NAMED)}"
        return f"{left}; what is done is safe, run again to go on"


@contextmanager
def listening(noun: str) -> Iterator[StopRequest]:
    """Listen to SIGTERM and SIGINT until the end, unless they are ignored (`nohup`), or this is not the main thread."""
    stop = StopRequest(noun)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop.receive) for number in numbers}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, stop.receive)
    try:
        yield stop
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
