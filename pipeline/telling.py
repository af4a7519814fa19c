"""How a run's videos are told of: a line for an end, how far one in progress is."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ..features_store.errors import flat
from ..features_store.text import counted
from .jobs import Failure, Job, Receipt, Stage


def result_line(result: Receipt | Failure) -> str:
    """One line for one video's end."""
    if isinstance(result, Failure):
        return flat(f"failed: {result.video}: {result.reason}")
    rate = result.rows / max(result.seconds, 1e-9)
    return f"done: {flat(result.trial)}: {counted(result.rows, 'row')} in {result.seconds:.1f} s ({rate:.1f} rows/s)"


def worth_telling(result: Receipt | Failure | None, verbose: bool) -> list[str]:
    """Failures and warnings always, a plain success only when asked for."""
    if result is None:
        return []
    lines = [result_line(result)] if verbose or isinstance(result, Failure) else []
    if isinstance(result, Receipt):
        lines += [flat(f"warning: {result.trial}: {warning}") for warning in result.warnings]
    return lines


def again_line(job: Job, reason: str) -> str:
    """One line for a video that will be tried again."""
    return flat(f"trying again: {job.name}: {reason}")


@dataclass
class InHand:
    """How far a video is: the stage and its rows, the share of the duration; `counted`: rows of the stage that counts.

    What counts is the picture where faces are embedded, else the sound: frames that are only decoded are no rows yet.
    """

    counts: Stage = "picture"
    counted: int = 0
    stage: Stage = "picture"
    rows: int = 0
    share: float | None = None

    def move(self, stage: Stage, rows: int, time_s: float, duration_s: float | None) -> None:
        """Rows of a stage so far, the time they have come to and the whole's length, in s."""
        self.stage, self.rows = stage, rows
        self.share = min(time_s / duration_s, 1) if duration_s else None
        if stage == self.counts:
            self.counted = max(self.counted, rows)  # the sound is gone through twice for MFCCs

    def percent(self, form: str) -> str:
        """The share in a form with one `{}`; nothing where it is not known."""
        return form.format(f"{self.share:.0%}") if self.share is not None else ""


class Pace:
    """Rows made so far by a whole run, and how many a second since its first video was begun."""

    def __init__(self, counts: Stage) -> None:
        self._counts: Stage = counts
        self.videos: dict[str, InHand] = {}
        self._before = 0
        self._began_s: float | None = None

    def start(self, trial: str) -> None:
        """A video is begun."""
        self._began_s = self._began_s or time.monotonic()
        self.videos[trial] = InHand(self._counts)

    def end(self, trial: str, rows: int) -> None:
        """A video has come to so many rows; one that came to nothing counts no longer."""
        self.videos.pop(trial, None)
        self._before += rows

    @property
    def rows(self) -> int:
        """Rows so far."""
        return self._before + sum(video.counted for video in self.videos.values())

    @property
    def rate(self) -> str:
        """Rows a second, in words; nothing before the first second is over."""
        seconds = time.monotonic() - self._began_s if self._began_s else 0.0
        return f"{self.rows / seconds:.1f} rows/s" if seconds >= 1 and self.rows else ""
