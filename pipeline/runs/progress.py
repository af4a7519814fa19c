"""How a run shows itself: bars on a terminal, elsewhere a plain line every 30 s and no redrawn bar."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any, NoReturn, TextIO

from tqdm import tqdm

from ...shell.progress import shows_bars
from ...shell.text import counted, flat
from ..extraction.jobs import Failure, Job, Receipt, Stage

LINE_EVERY_S = 30.0
_NAMED = 4


def make_reporter(verbose: bool, stream: TextIO | None = None, counts: Stage = "picture") -> BarReporter | LineReporter:
    """Bars where `stream` (stderr) is a terminal with a width, else lines; `counts`: the stage whose rows count."""
    stream = stream or sys.stderr
    return BarReporter(stream, verbose, counts) if shows_bars(stream) else LineReporter(stream, verbose, counts)


class BarReporter:
    """A bar for the run, and one for the current video, or a line for all that are in progress."""

    def __init__(self, stream: TextIO, verbose: bool, counts: Stage = "picture") -> None:
        self._stream, self._verbose = stream, verbose
        self._pace = Pace(counts)
        self._shown: tuple[str, Stage] | None = None
        self._drawn_s = 0.0
        self._run: tqdm[NoReturn] | None = None
        self._now: tqdm[NoReturn] | None = None

    def begin(self, jobs: int, starting: str = "") -> None:
        """Show the run's bar, and what is done before the first video."""
        shape: dict[str, Any] = {"file": self._stream, "dynamic_ncols": True, "smoothing": 0}
        self._run = tqdm(total=jobs, unit="video", position=0, **shape)
        self._now = tqdm(unit=" rows", position=1, leave=False, bar_format="{desc}", **shape)
        self._now.set_description_str(starting)

    def start(self, job: Job) -> None:
        """Show the video."""
        self._pace.start(job.trial)
        self._draw()

    def progress(self, job: Job, stage: Stage, rows: int, time_s: float, duration_s: float | None) -> None:
        """Move the bar."""
        if job.trial in self._pace.videos:
            self._pace.videos[job.trial].move(stage, rows, time_s, duration_s)
            self._draw()

    def finish(self, job: Job, result: Receipt | Failure | None) -> None:
        """Move the run's bar, say what is worth it."""
        self._end(job, result.rows if isinstance(result, Receipt) else 0)
        for line in is_worth_a_line(result, self._verbose):
            tqdm.write(line, file=self._stream)
        if self._run is not None:
            self._run.update()

    def retried(self, job: Job, reason: str) -> None:
        """Say why."""
        self._end(job, 0)
        tqdm.write(again_line(job, reason), file=self._stream)

    def drop(self, job: Job) -> None:
        """Forget it."""
        self._end(job, 0)

    def tick(self) -> None:
        """Let the clocks of the bars go on."""
        if time.monotonic() - self._drawn_s >= 1:
            self._draw()

    def end(self) -> None:
        """Close both bars."""
        for bar in (self._now, self._run):
            if bar is not None:
                bar.close()

    def _end(self, job: Job, rows: int) -> None:
        self._pace.end(job.trial, rows)
        self._draw()

    def _draw(self) -> None:
        if self._now is None or self._run is None:
            return
        self._drawn_s = time.monotonic()
        videos = self._pace.videos
        if len(videos) == 1:
            ((trial, video),) = videos.items()
            if self._shown != (trial, video.stage):
                self._shown = trial, video.stage
                self._now.reset()  # its rate is that of this stage of this video
                self._now.bar_format = None
                self._now.set_description_str(f"{trial[-32:]} {video.stage}", refresh=False)
            self._now.n = video.rows
            # The length is a guess from the share of the duration that is done.
            self._now.total = max(video.rows, round(video.rows / video.share)) if video.share else None
        elif videos:
            told = f"{counted(len(videos), 'video')} in progress, {counted(self._pace.rows, 'row')}"
            self._shown, self._now.bar_format = None, "{desc}"
            self._now.set_description_str(told, refresh=False)
        self._run.set_postfix_str(self._pace.rate, refresh=False)
        self._now.refresh()
        self._run.refresh()


class LineReporter:
    """A plain line every 30 s, and one for each failure and warning."""

    def __init__(self, stream: TextIO, verbose: bool, counts: Stage = "picture") -> None:
        self._stream, self._verbose = stream, verbose
        self._pace = Pace(counts)
        self._jobs = self._ended = 0
        self._told_s = time.monotonic()

    def begin(self, jobs: int, starting: str = "") -> None:
        """Note how many videos there are, and say what is done before the first one."""
        self._jobs = jobs
        if starting:
            self._tell(starting)

    def start(self, job: Job) -> None:
        """Note a video that is in progress."""
        self._pace.start(job.trial)

    def progress(self, job: Job, stage: Stage, rows: int, time_s: float, duration_s: float | None) -> None:
        """Note how far a video is."""
        if job.trial in self._pace.videos:
            self._pace.videos[job.trial].move(stage, rows, time_s, duration_s)
            self.tick()

    def finish(self, job: Job, result: Receipt | Failure | None) -> None:
        """Tell what went wrong, if anything did."""
        self._pace.end(job.trial, result.rows if isinstance(result, Receipt) else 0)
        self._ended += 1
        for line in is_worth_a_line(result, self._verbose):
            self._tell(line)

    def retried(self, job: Job, reason: str) -> None:
        """Say why."""
        self._pace.end(job.trial, 0)
        self._tell(again_line(job, reason))

    def drop(self, job: Job) -> None:
        """Forget it."""
        self._pace.end(job.trial, 0)

    def tick(self) -> None:
        """Tell where the run is, when 30 s have passed since it was told last."""
        now_s = time.monotonic()
        if now_s - self._told_s >= LINE_EVERY_S:
            self._told_s = now_s
            words = [f"{self._ended}/{counted(self._jobs, 'video')}", *self._where(), self._pace.rate]
            self._tell(", ".join(filter(None, words)))

    def end(self) -> None:
        """Nothing is open."""

    def _where(self) -> list[str]:
        videos = self._pace.videos
        if len(videos) == 1:
            ((trial, video),) = videos.items()
            return [f"{flat(trial)}: {video.stage} row {video.rows}{video.percent(' ({})')}"]
        named = [f"{flat(trial)}{video.percent(' {}')}" for trial, video in videos.items()]
        more = [f"and {len(named) - _NAMED} more"] if len(named) > _NAMED else []
        return [*named[:_NAMED], *more]

    def _tell(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


def result_line(result: Receipt | Failure) -> str:
    """One line for one video's end."""
    if isinstance(result, Failure):
        return flat(f"failed: {result.video}: {result.reason}")
    rate = result.rows / max(result.seconds, 1e-9)
    return f"done: {flat(result.trial)}: {counted(result.rows, 'row')} in {result.seconds:.1f} s ({rate:.1f} rows/s)"


def is_worth_a_line(result: Receipt | Failure | None, verbose: bool) -> list[str]:
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
class InProgress:
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
        self.videos: dict[str, InProgress] = {}
        self._before = 0
        self._began_s: float | None = None

    def start(self, trial: str) -> None:
        """A video is begun."""
        self._began_s = self._began_s or time.monotonic()
        self.videos[trial] = InProgress(self._counts)

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
