"""What becomes of the runs of a call: which failed and why, and lines on the screen.

Tested by tests/fusion/runs/test_work.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ...batch.protocols import WorkerLost
from ...features_store.claims.claims import release_folder
from ...shell.progress import LineClock
from ...shell.text import counted
from .crossval import RunSpec
from .work import Failed, Result, Trained

_NAMED = 4


class RunMonitor:
    """Is called with what becomes of `runs` runs and says it; `said` are lines that have been said already.

    `failed`: {run: why}; `elsewhere`: runs that another call is training, or has done.
    """

    def __init__(self, runs: int, say: Callable[[str], None], said: Iterable[str] = ()) -> None:
        self.failed: dict[RunSpec, str] = {}
        self.elsewhere: list[RunSpec] = []
        self._runs, self._say, self._said = runs, say, set(said)
        self._over = 0
        self._epochs: dict[RunSpec, str] = {}
        self._clock = LineClock(at_once=True)  # the first epoch is said at once

    def started(self, job: RunSpec) -> None:
        """Nothing is said."""

    def progressed(self, job: RunSpec, words: tuple[Any, ...]) -> None:
        """A run on a worker has finished an epoch."""
        epoch, epochs, best_p, best_epoch = words
        self._epochs[job] = f"{job.name} epoch {epoch}/{epochs}, best P {best_p:.3f} (epoch {best_epoch})"

    def ended(self, job: RunSpec, result: Result | WorkerLost) -> None:
        """A run is over: its scores, or why there are none."""
        self._epochs.pop(job, None)
        self._over += 1
        if isinstance(result, Trained):
            for line in result.features:
                if line not in self._said:
                    self._said.add(line)
                    self._say(line)
            self._say(f"{job.name}: best epoch {result.best} of {result.epochs} ({result.reason}): {job.folder}")
            for line in result.report:
                self._say(f"  {line}")
        elif result is None:
            self.elsewhere.append(job)
            self._say(f"{job.name}: left to another call, which is training it or has done it: {job.folder}")
        else:
            self.failed[job] = _why(job, result)
            if self._runs > 1:
                self._say(f"{job.folder} failed: {self.failed[job]}")

    def retried(self, job: RunSpec, result: Result | WorkerLost) -> None:
        """A run goes on from its last saved epoch."""
        self._epochs.pop(job, None)
        if isinstance(result, (Failed, WorkerLost)):
            self._say(f"note: {job.name} is tried again, from its last saved epoch: {_why(job, result)}")

    def interrupted(self, job: RunSpec) -> None:
        """A run was stopped."""
        self._epochs.pop(job, None)

    def tick(self) -> None:
        """A line every 30 s about runs that have no screen of their own."""
        if self._epochs and self._clock.is_due():
            lines = list(self._epochs.values())
            more = f"; {len(lines) - _NAMED} more in progress" if len(lines) > _NAMED else ""
            self._say(f"{self._over} of {counted(self._runs, 'run')} over; {'; '.join(lines[:_NAMED])}{more}")


def _why(job: RunSpec, result: Failed | WorkerLost) -> str:
    if isinstance(result, Failed):
        return result.reason
    release_folder(job.folder, result.owner)  # the dead worker's claim must not keep others off the run
    return result.reason
