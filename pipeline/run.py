"""Doing a plan: every video, here or on a cluster; a bad one becomes a failure and never ends the run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ..batch.loop import run_jobs
from ..batch.machine import jobs_at_once
from ..batch.stopping import Stop
from ..batch.where import Where, open_place
from ..batch.work import Lost, Pulse
from ..features_store.claims import ClaimLost, claim
from ..features_store.errors import flat
from ..features_store.failures import read_failures
from ..features_store.leaving import leave
from ..features_store.owner import Owner
from ..features_store.store import FeatureStore
from .attempt import attempt
from .config import ExtractConfig, RunConfig
from .jobs import Failure, Job, Receipt, Stage
from .plan import Plan, same_file, standing
from .registry import sha256_of
from .summary import Summary, stopping
from .toolbox import Toolbox, open_toolbox
from .weights import WeightsInvalid, WeightSource

Result = Receipt | Failure | None


class Reporter(Protocol):
    """Where a run tells what it does; several videos may be in progress at once."""

    def begin(self, jobs: int, starting: str) -> None:
        """The run has this many videos to do; what is done before the first of them, where that takes a while."""

    def start(self, job: Job) -> None:
        """A video is begun."""

    def progress(self, job: Job, stage: Stage, rows: int, time_s: float, duration_s: float | None) -> None:
        """Rows of a video done so far, of its picture or of its sound."""

    def finish(self, job: Job, result: Result) -> None:
        """A video is done, has failed, or was left to another run (None)."""

    def again(self, job: Job, reason: str) -> None:
        """A video has failed for a reason that may pass, and will be tried again."""

    def drop(self, job: Job) -> None:
        """A video was given up in the middle, and nobody is to blame."""

    def tick(self) -> None:
        """About a second has passed."""

    def end(self) -> None:
        """The run is over, one way or the other."""


@dataclass(frozen=True)
class ExtractWork:
    """What is done for each video, in whatever process: it travels to every worker.

    `failures_known`: lines of `failures.jsonl` when the plan was made; `foreign`: the workers may have other files;
    `replace`: trials of other settings are made anew.
    """

    store: str
    config: ExtractConfig
    run: RunConfig
    weights: Mapping[str, WeightSource]
    overwrite: bool
    failures_known: int
    foreign: bool = False
    replace: bool = False

    def name(self, job: Job) -> str:
        """The trial."""
        return job.trial

    def may_pass(self, result: Result) -> bool:
        """Whether trying again may help."""
        return isinstance(result, Failure) and result.may_pass

    @contextmanager
    def prepare(self) -> Iterator[Callable[[Job, Pulse], Result]]:
        """Load the networks. Raises what `open_toolbox` does, OSError or WeightsInvalid for another machine's files."""
        if self.foreign:
            _check_weights(self.weights)
        with open_toolbox(self.config, self.run, dict(self.weights)) as tools:
            yield partial(self._do, FeatureStore(self.store, mode="a"), tools)

    def _do(self, store: FeatureStore, tools: Toolbox, job: Job, pulse: Pulse) -> Result:
        """One video, unless another run is processing it or has dealt with it. Raises RunStopped."""
        with stopping(store), claim(store.path, job.trial) as mine:
            if not mine:
                return None
            if not self.overwrite:
                if self._found_bad(job, store):
                    return None
                told = standing(store, job, self.config, tools.fingerprint, self.weights)
                if told == []:
                    return None
                if told and not self.replace:  # nobody asked for that: the plan was made before it was there
                    reason = f"another run has made it meanwhile ({'; '.join(told)}); --replace makes it anew"
                    return Failure(job.name, job.trial, "plan", flat(reason), job.video)
            try:
                return attempt(job, store, tools, self.run, pulse)
            except ClaimLost as error:  # tried again it is left to whoever has it, or has done it
                return Failure(job.name, job.trial, "claim", f"{error}; nothing was written", job.video, may_pass=True)

    def _found_bad(self, job: Job, store: FeatureStore) -> bool:
        """Whether another run has found the video bad since the plan was made."""
        newer = read_failures(store)[self.failures_known :]
        return any(record.trial == job.trial and same_file(job.video, record) for record in newer)


def run_plan(
    plan: Plan, work: ExtractWork, where: Where, retries: int, stop: Stop, reporter: Reporter, summary: Summary
) -> None:
    """Do every job of the plan, into `summary`, until all are done or `stop` is set.

    Raises RunStopped when the store cannot be written any more, WorkerUnfit where a cluster cannot do the jobs.
    """
    started_s = time.monotonic()
    store = FeatureStore(work.store, mode="a")
    jobs = list(plan.jobs)
    if not where.is_here:
        work, jobs = _to_travel(work, where), _by_size(jobs)
    stop.left = [work.name(job) for job in jobs]  # while networks are loaded nothing has ended either
    stop.on_abandon = partial(leave, store, Owner.current())
    reporter.begin(len(jobs), where.starting)
    try:
        # A GPU that is named by its number is the one for all.
        own_gpus = work.run.device in ("auto", "cuda")
        with open_place(where, work, _at_once(work, where), own_gpus, stop) as place:
            run_jobs(work, jobs, place, stop, _Hearing(store, reporter, summary), retries)
    finally:
        reporter.end()
        summary.seconds = time.monotonic() - started_s


class _Hearing:
    """What becomes of the jobs goes into the summary, and to the screen."""

    def __init__(self, store: FeatureStore, reporter: Reporter, summary: Summary) -> None:
        self._store, self._reporter, self._summary = store, reporter, summary
        self.started, self.interrupted, self.tick = reporter.start, reporter.drop, reporter.tick

    def told(self, job: Job, words: tuple[Any, ...]) -> None:
        self._reporter.progress(job, *words)

    def ended(self, job: Job, result: Result | Lost) -> None:
        found = self._bury(job, result) if isinstance(result, Lost) else result
        with stopping(self._store):
            self._summary.add(found, job, self._store)
        self._reporter.finish(job, found)

    def again(self, job: Job, result: Result | Lost) -> None:
        failure = self._bury(job, result) if isinstance(result, Lost) else result
        self._reporter.again(job, failure.reason if isinstance(failure, Failure) else "")

    def _bury(self, job: Job, lost: Lost) -> Failure:
        """What the dead worker has left must not keep others off its videos."""
        leave(self._store, lost.owner)
        reason = f"its worker on {lost.host} died: out of memory, or a crash inside a library"
        return Failure(job.name, job.trial, "worker", reason, job.video)


def _at_once(work: ExtractWork, where: Where) -> int:
    run = work.run
    if run.videos_at_once or not where.is_here:
        return run.videos_at_once or int(run.device == "cpu")
    if not work.config.networks:
        return 1
    from .embed import choose_device  # noqa: PLC0415 - torch only where it is used

    return jobs_at_once(0, int(choose_device(run.device).type == "cuda"))


def _to_travel(work: ExtractWork, where: Where) -> ExtractWork:
    """The same for processes that work in another folder."""
    weights = {
        name: replace(source, path=source.path.absolute()) if source.path else source
        for name, source in work.weights.items()
    }
    store = work.store if "://" in work.store else os.path.abspath(work.store)
    run = replace(work.run, threads=work.run.threads or where.threads())
    return replace(work, store=store, weights=weights, run=run, foreign=where.workers == 1)


def _by_size(jobs: list[Job]) -> list[Job]:
    """The largest first, so that the workers end at about the same time; paths that hold in any folder."""
    found = [
        replace(job, video=job.video.absolute(), crops=job.crops.absolute() if job.crops else None) for job in jobs
    ]
    return sorted(found, key=lambda job: (-job.size_bytes, job.trial))


def _check_weights(weights: Mapping[str, WeightSource]) -> None:
    """The same path may be another file on this machine. Raises OSError, WeightsInvalid."""
    for path, sha256 in {(source.path, source.sha256) for source in weights.values() if source.path}:
        if sha256_of(Path(path)) != sha256:
            raise WeightsInvalid(f"{path} is another file than on the machine that started the run")
