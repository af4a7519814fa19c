"""How a run shows itself: bars on a terminal, elsewhere a plain line every 30 s and no redrawn bar."""

from __future__ import annotations

import sys
import time
from typing import NoReturn, TextIO

from tqdm import tqdm

from ..features_store.errors import flat
from ..features_store.text import counted
from .jobs import Failure, Job, Receipt, Stage
from .telling import InHand, again_line, worth_telling

LINE_EVERY_S = 30.0
_NAMED = 4


def make_reporter(verbose: bool, stream: TextIO | None = None) -> BarReporter | LineReporter:
    """Bars where `stream` (stderr) is a terminal, lines where it is not."""
    stream = stream or sys.stderr
    return BarReporter(stream, verbose) if stream.isatty() else LineReporter(stream, verbose)


class BarReporter:
    """A bar for the run, and one for the current video, or for the frames of all that are in hand."""

    def __init__(self, stream: TextIO, verbose: bool) -> None:
        self._stream, self._verbose = stream, verbose
        self._in_hand: dict[str, InHand] = {}
        self._frames_before = 0
        self._run: tqdm[NoReturn] | None = None
        self._now: tqdm[NoReturn] | None = None

    def begin(self, jobs: int) -> None:
        """Show the run's bar."""
        self._run = tqdm(total=jobs, unit="video", file=self._stream, position=0, dynamic_ncols=True)

    def start(self, job: Job) -> None:
        """Show the video's bar."""
        self._in_hand[job.trial] = InHand()
        if self._now is None or len(self._in_hand) == 1:
            self._close_now()
            self._now = tqdm(unit="frame", file=self._stream, position=1, leave=False)
        self._draw()

    def progress(self, job: Job, stage: Stage, rows: int, time_s: float, duration_s: float | None) -> None:
        """Move the bar."""
        if job.trial in self._in_hand:
            self._in_hand[job.trial].move(stage, rows, time_s, duration_s)
            self._draw()

    def finish(self, job: Job, result: Receipt | Failure | None) -> None:
        """Move the run's bar, say what is worth it."""
        self._end(job, result.frames if isinstance(result, Receipt) else 0)
        for line in worth_telling(result, self._verbose):
            tqdm.write(line, file=self._stream)
        if self._run is not None:
            self._run.update()

    def again(self, job: Job, reason: str) -> None:
        """Say why."""
        self._end(job, 0)
        tqdm.write(again_line(job, reason), file=self._stream)

    def drop(self, job: Job) -> None:
        """Forget it."""
        self._end(job, 0)

    def tick(self) -> None:
        """The bars move by themselves."""

    def end(self) -> None:
        """Close both bars."""
        self._close_now()
        if self._run is not None:
            self._run.close()

    def _end(self, job: Job, frames: int) -> None:
        self._in_hand.pop(job.trial, None)
        self._frames_before += frames
        if self._in_hand:
            self._draw()
        else:
            self._close_now()

    def _close_now(self) -> None:
        if self._now is not None:
            self._now.close()
            self._now = None

    def _draw(self) -> None:
        if self._now is None:
            return
        if len(self._in_hand) == 1:
            ((trial, video),) = self._in_hand.items()
            self._now.n, self._now.unit = video.rows, "frame" if video.stage == "picture" else " sound row"
            # The length is a guess from the share of the duration that is done.
            self._now.total = max(video.rows, round(video.rows / video.share)) if video.share else None
            self._now.set_description_str(trial[-32:], refresh=False)
        else:
            self._now.n, self._now.total, self._now.unit = self._all_frames(), None, "frame"
            self._now.set_description_str(f"{counted(len(self._in_hand), 'video')} in hand", refresh=False)
        self._now.refresh()

    def _all_frames(self) -> int:
        return self._frames_before + sum(video.frames for video in self._in_hand.values())


class LineReporter:
    """A plain line every 30 s, and one for each failure and warning."""

    def __init__(self, stream: TextIO, verbose: bool) -> None:
        self._stream, self._verbose = stream, verbose
        self._jobs = self._ended = self._frames_before = 0
        self._in_hand: dict[str, InHand] = {}
        self._began_s = self._told_s = time.monotonic()

    def begin(self, jobs: int) -> None:
        """Note how many videos there are."""
        self._jobs = jobs

    def start(self, job: Job) -> None:
        """Note a video that is in hand."""
        self._in_hand[job.trial] = InHand()

    def progress(self, job: Job, stage: Stage, rows: int, time_s: float, duration_s: float | None) -> None:
        """Note how far a video is."""
        if job.trial in self._in_hand:
            self._in_hand[job.trial].move(stage, rows, time_s, duration_s)
            self.tick()

    def finish(self, job: Job, result: Receipt | Failure | None) -> None:
        """Tell what went wrong, if anything did."""
        video = self._in_hand.pop(job.trial, InHand())
        self._ended += 1
        self._frames_before += result.frames if isinstance(result, Receipt) else video.frames
        for line in worth_telling(result, self._verbose):
            self._tell(line)

    def again(self, job: Job, reason: str) -> None:
        """Say why."""
        self._in_hand.pop(job.trial, None)
        self._tell(again_line(job, reason))

    def drop(self, job: Job) -> None:
        """Forget it."""
        self._in_hand.pop(job.trial, None)

    def tick(self) -> None:
        """Tell where the run is, when 30 s have passed since it was told last."""
        now_s = time.monotonic()
        if now_s - self._told_s >= LINE_EVERY_S:
            self._told_s = now_s
            frames = self._frames_before + sum(video.frames for video in self._in_hand.values())
            rate = frames / (now_s - self._began_s)
            where = ", ".join([f"{self._ended}/{self._jobs} videos", *self._where()])
            self._tell(f"{where}, {rate:.1f} frames/s")

    def end(self) -> None:
        """Nothing is open."""

    def _where(self) -> list[str]:
        if len(self._in_hand) == 1:
            ((trial, video),) = self._in_hand.items()
            return [f"{flat(trial)}: {video.stage} row {video.rows}{video.percent(' ({})')}"]
        named = [f"{flat(trial)}{video.percent(' {}')}" for trial, video in self._in_hand.items()]
        more = [f"and {len(named) - _NAMED} more"] if len(named) > _NAMED else []
        return [*named[:_NAMED], *more]

    def _tell(self, line: str) -> None:
        print(line, file=self._stream, flush=True)
