"""Transcribing many videos: each to its file, here or on a cluster; a bad one is a failure and never ends the run.

Tested by tests/pipeline/transcribe/test_transcribe.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...batch.loop import run_jobs
from ...batch.protocols import JobContext, WorkerLost
from ...batch.signals import StopRequest
from ...batch.target import ExecutionTarget, open_executor
from ...features_store.records.failures import Stage
from ...features_store.schema import JsonValue
from ...shell.text import flat, one_line
from ..config import RecogniserSettings
from ..extraction.jobs import Failure, Job
from ..media.probe import probe
from ..media.readers import AudioReader
from ..media.streams import Choice
from ..media.types import MediaError
from ..words.transcript import SUFFIX, Word, write_transcript
from .recogniser import Recogniser, clamped

if TYPE_CHECKING:
    from ..runs.progress import Reporter


@dataclass(frozen=True)
class Transcribed:
    """What one video became. `rows`: its words; `seconds`: that it took; `duration_s`: of the sound."""

    trial: str
    video: str
    file: str
    rows: int
    duration_s: float
    language: str
    seconds: float
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, JsonValue]:
        """The receipt for `--json`."""
        named: dict[str, JsonValue] = {key: value for key, value in vars(self).items() if key != "rows"}
        return {**named, "words": self.rows, "warnings": list(self.warnings)}


Result = Transcribed | Failure


def file_of(out: Path, trial: str) -> Path:
    """Where a trial's words go."""
    return out / f"{trial}{SUFFIX}"


@dataclass(frozen=True)
class TranscribeTask:
    """What is done for each video, in whatever process: it travels to every worker."""

    out: Path
    settings: RecogniserSettings
    audio_stream: int | None
    stall_timeout_s: float

    def name(self, job: Job) -> str:
        """The trial."""
        return job.trial

    def is_transient(self, result: Result) -> bool:
        """Whether trying again may help."""
        return isinstance(result, Failure) and result.is_transient

    @contextmanager
    def prepare(self) -> Iterator[Callable[[Job, JobContext], Result]]:
        """Load the model. Raises ValueError."""
        yield partial(self._do, Recogniser(self.settings))

    def _do(self, recogniser: Recogniser, job: Job, context: JobContext) -> Result:
        """One video. Raises OSError where its file cannot be written: with every further one it would be the same."""
        began_s = time.monotonic()
        words: list[Word] = []
        warnings: list[str] = []
        done_s, language = 0.0, ""
        try:
            info = probe(job.video, Choice(None, self.audio_stream), stall_timeout_s=self.stall_timeout_s)
            if info.audio_stream is None:
                warnings.append("no audio: a file without words")
            else:
                context.tell("sound", 0, 0.0, info.duration_s)
                with AudioReader(info, stall_timeout_s=self.stall_timeout_s) as audio:
                    for done_s, more, heard in recogniser.words(audio):
                        words, language = words + more, heard or language
                        context.check()
                        context.tell("sound", len(words), done_s, info.duration_s)
                    words = clamped(words, audio.real_spans())
                    warnings += [f"sound: {each}" for each in audio.ending.warnings]
                if not words:
                    warnings.append("no words are heard in it")
        except MediaError as error:
            return Failure(job.name, job.trial, error.stage, flat(error.words), job.video, error.is_transient)
        except OSError as error:
            return Failure(job.name, job.trial, Stage.READ, one_line(error), job.video, is_transient=True)
        except (RuntimeError, MemoryError, ValueError) as error:  # of the model: memory, a driver, an odd recording
            reason = f"{type(error).__name__}: {one_line(error)}"
            return Failure(job.name, job.trial, Stage.EXTRACT, reason, job.video, not isinstance(error, ValueError))
        path = file_of(self.out, job.trial)
        write_transcript(path, words)
        seconds = time.monotonic() - began_s
        receipt = Transcribed(job.trial, job.name, str(path), len(words), done_s, language, seconds)
        return replace(receipt, warnings=tuple(warnings))


@dataclass
class TranscribeSummary:
    """What a run came to."""

    done_before: int
    receipts: list[Transcribed] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0

    def as_json(self) -> dict[str, object]:
        """The machine-readable summary of `--json`."""
        return {
            "done_before": self.done_before,
            "transcribed": [each.as_json() for each in self.receipts],
            "failed": [each.as_json() for each in self.failures],
            "seconds": round(self.seconds, 3),
        }


class _RunMonitor:
    """What becomes of the jobs goes into the summary, and to the screen."""

    def __init__(self, reporter: Reporter, summary: TranscribeSummary) -> None:
        self._reporter, self._summary = reporter, summary
        self.started, self.interrupted, self.tick = reporter.start, reporter.drop, reporter.tick

    def progressed(self, job: Job, words: tuple[Any, ...]) -> None:
        self._reporter.progress(job, *words)

    def ended(self, job: Job, result: Result | WorkerLost) -> None:
        outcome = _failure_of(job, result) if isinstance(result, WorkerLost) else result
        if isinstance(outcome, Failure):
            self._summary.failures.append(outcome)
        else:
            self._summary.receipts.append(outcome)
        self._reporter.finish(job, outcome)

    def retried(self, job: Job, result: Result | WorkerLost) -> None:
        outcome = _failure_of(job, result) if isinstance(result, WorkerLost) else result
        self._reporter.retried(job, outcome.reason if isinstance(outcome, Failure) else "")


def _failure_of(job: Job, lost: WorkerLost) -> Failure:
    return Failure(job.name, job.trial, Stage.WORKER, lost.reason, job.video)


def transcribe_all(
    jobs: Sequence[Job],
    task: TranscribeTask,
    target: ExecutionTarget,
    retries: int,
    stop: StopRequest,
    reporter: Reporter,
    summary: TranscribeSummary,
) -> None:
    """Do every job, into `summary`, until all are done or `stop` is set. Raises OSError, ValueError, WorkerUnfit."""
    began_s = time.monotonic()
    todo = list(jobs)
    if not target.in_process:  # other processes have another working folder; the largest first, to end together
        settings = replace(task.settings, folder=task.settings.folder.absolute(), threads=target.threads())
        task = replace(task, out=Path(os.path.abspath(task.out)), settings=settings)
        todo = sorted((replace(job, video=job.video.absolute()) for job in todo), key=lambda job: -job.size_bytes)
    stop.left = [task.name(job) for job in todo]
    reporter.begin(len(todo), target.starting)
    try:
        with open_executor(target, task, 1, task.settings.device in ("auto", "cuda"), stop) as executor:
            run_jobs(task, todo, executor, stop, _RunMonitor(reporter, summary), retries)
    finally:
        reporter.end()
        summary.seconds = time.monotonic() - began_s
