"""How a run shows itself: bars on a terminal, elsewhere a plain line every 30 s and no redrawn bar.

Tested by tests/pipeline/runs/test_progress.py and tests/faults/test_environment.py.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TextIO

from tqdm import tqdm

from ...shell.progress import LineClock, shows_bars
from ...shell.text import counted, flat
from ..extraction.jobs import Failure, Job

_NAMED = 4


class Done(Protocol):
    """What a job that went well comes to, as far as it is shown: `rows` that took `seconds`."""

    @property
    def trial(self) -> str:
        """The trial."""

    @property
    def rows(self) -> int:
        """What was made of it."""

    @property
    def seconds(self) -> float:
        """How long that took."""

    @property
    def warnings(self) -> Sequence[str]:
        """What its user should know."""


def make_reporter(verbose: bool, stream: TextIO | None = None, counts: str = "picture", noun: str = "row") -> Reporter:
    """Bars where `stream` (stderr) is a terminal with a width, else lines."""
    stream = stream or sys.stderr
    kind = BarReporter if shows_bars(stream) else Reporter
    return kind(stream, verbose, counts, noun)


@dataclass
class InProgress:
    """How far a video is: which stream, its rows, the share of the duration; `made`: rows of the stream that counts."""

    made: int = 0
    stream: str = "picture"
    rows: int = 0
    share: float | None = None


class Reporter:
    """A plain line every 30 s, and one for each failure and warning; several videos may be in progress at once.

    `verbose`: a line for each video that is done, too. `counts`: the stream whose rows count, the picture where faces
    are embedded, else the next one: frames that are only decoded are not rows yet. `noun`: what a row is called.
    """

    def __init__(self, file: TextIO, verbose: bool, counts: str = "picture", noun: str = "row") -> None:
        self._file, self._verbose, self._counts, self._noun = file, verbose, counts, noun
        self._videos: dict[str, InProgress] = {}
        self._jobs = self._ended = self._rows_before = 0
        self._began_s: float | None = None
        self._clock = LineClock()

    def begin(self, jobs: int, starting: str = "") -> None:
        """The run has this many videos to do; `starting`: what is done before the first one, where that takes time."""
        self._jobs = jobs
        if starting:
            self._say(starting)

    def start(self, job: Job) -> None:
        """A video is begun."""
        self._began_s = self._began_s or time.monotonic()
        self._videos[job.trial] = InProgress()

    def progress(self, job: Job, stream: str, rows: int, time_s: float, duration_s: float | None) -> None:
        """Rows of a video done so far, of one of its streams, which have come to `time_s` of `duration_s`."""
        if video := self._videos.get(job.trial):
            video.stream, video.rows = stream, rows
            video.share = min(time_s / duration_s, 1) if duration_s else None
            if stream == self._counts:
                video.made = max(video.made, rows)  # the rows of the sound are gone through twice for MFCCs
            self.tick()

    def finish(self, job: Job, result: Done | Failure | None) -> None:
        """A video is done, has failed, or was left to another run (None)."""
        self._videos.pop(job.trial, None)
        self._ended += 1
        if isinstance(result, Failure):
            self._say(flat(f"failed: {result.video}: {result.reason}"))
        elif result is not None:
            self._rows_before += result.rows
            if self._verbose:
                done = f"{counted(result.rows, self._noun)} in {result.seconds:.1f} s"
                rate = f"{result.rows / max(result.seconds, 1e-9):.1f} {self._noun}s/s"
                self._say(f"done: {flat(result.trial)}: {done} ({rate})")
            for warning in result.warnings:
                self._say(flat(f"warning: {result.trial}: {warning}"))
        self.tick()

    def retried(self, job: Job, reason: str) -> None:
        """A video has failed for a reason that may pass, and will be tried again."""
        self._say(flat(f"trying again: {job.name}: {reason}"))
        self.drop(job)

    def drop(self, job: Job) -> None:
        """A video was given up in the middle, and nobody is to blame: its rows count no longer."""
        self._videos.pop(job.trial, None)
        self.tick()

    def tick(self) -> None:
        """Show where the run is, when 30 s have passed since that was shown last. Called about once a second."""
        if not self._clock.is_due():
            return
        if len(self._videos) == 1:
            ((trial, video),) = self._videos.items()
            share = "" if video.share is None else f" ({video.share:.0%})"
            named = [f"{flat(trial)}: {video.stream} {self._noun} {video.rows}{share}"]
        else:
            named = [
                flat(trial) + ("" if video.share is None else f" {video.share:.0%}")
                for trial, video in self._videos.items()
            ]
            if len(named) > _NAMED:
                named = [*named[:_NAMED], f"and {len(named) - _NAMED} more"]
        words = [f"{self._ended}/{counted(self._jobs, 'video')}", *named, self._pace()[1]]
        self._say(", ".join(filter(None, words)))

    def end(self) -> None:
        """The run is over, one way or the other."""

    def _pace(self) -> tuple[int, str]:
        """Rows so far, and how many a second since the first video was begun, in words; nothing in the first second."""
        rows = self._rows_before + sum(video.made for video in self._videos.values())
        seconds = time.monotonic() - self._began_s if self._began_s else 0.0
        return rows, f"{rows / seconds:.1f} {self._noun}s/s" if seconds >= 1 and rows else ""

    def _say(self, line: str) -> None:
        print(line, file=self._file, flush=True)


class BarReporter(Reporter):
    """A bar for the run, and one for the current video, or a line for all that are in progress."""

    def __init__(self, file: TextIO, verbose: bool, counts: str = "picture", noun: str = "row") -> None:
        super().__init__(file, verbose, counts, noun)
        self._shown: tuple[str, str] | None = None
        self._run: tqdm[NoReturn] | None = None
        self._now: tqdm[NoReturn] | None = None

    def begin(self, jobs: int, starting: str = "") -> None:
        """Show the run's bar, and what is done before the first video."""
        shape: dict[str, Any] = {"file": self._file, "dynamic_ncols": True, "smoothing": 0}
        self._run = tqdm(total=jobs, unit="video", position=0, **shape)
        self._now = tqdm(unit=f" {self._noun}s", position=1, leave=False, bar_format="{desc}", **shape)
        self._now.set_description_str(starting)

    def tick(self) -> None:
        """Draw both bars anew, with their clocks."""
        if self._now is None or self._run is None:
            return
        rows, rate = self._pace()
        if len(self._videos) == 1:
            ((trial, video),) = self._videos.items()
            if self._shown != (trial, video.stream):
                self._shown = trial, video.stream
                self._now.reset()  # its rate is that of this stream of this video
                self._now.bar_format = None
                self._now.set_description_str(f"{trial[-32:]} {video.stream}", refresh=False)
            self._now.n = video.rows
            # The length is a guess from the share of the duration that is done.
            self._now.total = max(video.rows, round(video.rows / video.share)) if video.share else None
        elif self._videos:
            words = f"{counted(len(self._videos), 'video')} in progress, {counted(rows, self._noun)}"
            self._shown, self._now.bar_format = None, "{desc}"
            self._now.set_description_str(words, refresh=False)
        self._run.n = self._ended
        self._run.set_postfix_str(rate, refresh=False)
        self._now.refresh()
        self._run.refresh()

    def end(self) -> None:
        """Close both bars."""
        for bar in (self._now, self._run):
            if bar is not None:
                bar.close()

    def _say(self, line: str) -> None:
        tqdm.write(line, file=self._file)
