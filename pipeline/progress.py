"""How a run shows itself: bars on a terminal, elsewhere a plain line every 30 s and no redrawn bar."""

from __future__ import annotations

import sys
import time
from typing import NoReturn, TextIO

from tqdm import tqdm

from ..features_store.errors import flat
from .jobs import Failure, Job, Receipt, Stage

LINE_EVERY_S = 30.0


def make_reporter(verbose: bool, stream: TextIO | None = None) -> BarReporter | LineReporter:
    """Bars where `stream` (stderr) is a terminal, lines where it is not."""
    stream = stream or sys.stderr
    return BarReporter(stream, verbose) if stream.isatty() else LineReporter(stream, verbose)


def result_line(result: Receipt | Failure) -> str:
    """One line for one video's end."""
    if isinstance(result, Failure):
        return flat(f"failed: {result.video}: {result.reason}")
    rate = result.frames / max(result.seconds, 1e-9)
    return f"done: {flat(result.trial)}: {result.rows} rows in {result.seconds:.1f} s ({rate:.1f} frames/s)"


def _worth_telling(result: Receipt | Failure | None, verbose: bool) -> list[str]:
    """Failures and warnings always, a plain success only when asked for."""
    if result is None:
        return []
    lines = [result_line(result)] if verbose or isinstance(result, Failure) else []
    if isinstance(result, Receipt):
        lines += [flat(f"warning: {result.trial}: {warning}") for warning in result.warnings]
    return lines


class BarReporter:
    """A bar for the run and one for the current video."""

    def __init__(self, stream: TextIO, verbose: bool) -> None:
        self._stream, self._verbose = stream, verbose
        self._stage: Stage = "picture"
        self._run: tqdm[NoReturn] | None = None
        self._video: tqdm[NoReturn] | None = None

    def begin(self, jobs: int) -> None:
        """Show the run's bar."""
        self._run = tqdm(total=jobs, unit="video", file=self._stream, position=0, dynamic_ncols=True)

    def start(self, job: Job) -> None:
        """Show the video's bar."""
        self._stage = "picture"
        self._video = tqdm(desc=job.trial[-32:], unit="frame", file=self._stream, position=1, leave=False)

    def progress(self, stage: Stage, rows: int, time_s: float, duration_s: float | None) -> None:
        """Move the video's bar; its length is a guess from the share of the duration that is done."""
        if self._video is None:
            return
        if stage != self._stage:
            self._stage = stage
            self._video.unit = f" {stage} row"
        if duration_s and time_s > 0:
            self._video.total = max(rows, round(rows * duration_s / time_s))
        self._video.n = rows
        self._video.refresh()

    def finish(self, result: Receipt | Failure | None) -> None:
        """Close the video's bar and move the run's."""
        if self._video is not None:
            self._video.close()
        for line in _worth_telling(result, self._verbose):
            tqdm.write(line, file=self._stream)
        if self._run is not None:
            self._run.update()

    def end(self) -> None:
        """Close both bars."""
        for bar in (self._video, self._run):
            if bar is not None:
                bar.close()


class LineReporter:
    """A plain line every 30 s, and one for each failure and warning."""

    def __init__(self, stream: TextIO, verbose: bool) -> None:
        self._stream, self._verbose = stream, verbose
        self._jobs = self._ended = self._frames = self._frames_before = 0
        self._trial = ""
        self._began_s = self._told_s = time.monotonic()

    def begin(self, jobs: int) -> None:
        """Note how many videos there are."""
        self._jobs = jobs

    def start(self, job: Job) -> None:
        """Note which video is the current one."""
        self._trial, self._frames = job.trial, 0

    def progress(self, stage: Stage, rows: int, time_s: float, duration_s: float | None) -> None:
        """Tell where the run is, when 30 s have passed since it was told last."""
        if stage == "picture":
            self._frames = rows
        now_s = time.monotonic()
        if now_s - self._told_s >= LINE_EVERY_S:
            self._told_s = now_s
            rate = (self._frames_before + self._frames) / (now_s - self._began_s)
            share = f" ({min(time_s / duration_s, 1):.0%})" if duration_s else ""
            where = f"{self._ended}/{self._jobs} videos, {flat(self._trial)}"
            self._tell(f"{where}: {stage} row {rows}{share}, {rate:.1f} frames/s")

    def finish(self, result: Receipt | Failure | None) -> None:
        """Tell what went wrong, if anything did."""
        self._ended += 1
        self._frames_before += self._frames
        for line in _worth_telling(result, self._verbose):
            self._tell(line)

    def end(self) -> None:
        """Nothing is open."""

    def _tell(self, line: str) -> None:
        print(line, file=self._stream, flush=True)
