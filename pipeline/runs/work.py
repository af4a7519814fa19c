"""Doing a plan: every video, here or on a cluster; a bad one becomes a failure and never ends the run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ...batch.loop import run_jobs
from ...batch.protocols import JobContext, WorkerLost
from ...batch.resources import jobs_at_once
from ...batch.signals import StopRequest
from ...batch.target import ExecutionTarget, open_executor
from ...encoders.plugins import use_files
from ...encoders.weights.resolve import WeightsInvalid, WeightSource, hash_of_weights
from ...features_store.claims.claims import ClaimLost, claim, claimed_features, release_all
from ...features_store.disk.owner import Owner
from ...features_store.records.failures import Stage, read_failures
from ...features_store.store import FeatureStore
from ...shell.text import flat
from ..config import ExtractConfig, RunConfig
from ..extraction.jobs import Failure, Job, Receipt
from ..extraction.session import Session, open_session
from .attempt import attempt
from .plan import Plan, job_for, losing_line, same_file, standing
from .summary import Summary, stop_on_store_error

if TYPE_CHECKING:
    from .progress import Reporter

Result = Receipt | Failure | None
_ASK_AGAIN_S = 0.5


@dataclass(frozen=True)
class ExtractTask:
    """What is done for each video, in whatever process: it travels to every worker.

    `store`: opened to be written, or its place, for another process; `failures_known`: lines of `failures.jsonl` when
    the plan was made; `foreign`: the workers may have other files; `replace`: trials of other settings are made anew.
    """

    store: FeatureStore | str
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

    def is_transient(self, result: Result) -> bool:
        """Whether trying again may help."""
        return isinstance(result, Failure) and result.is_transient

    @contextmanager
    def prepare(self) -> Iterator[Callable[[Job, JobContext], Result]]:
        """Load the networks. Raises what `open_session` does, OSError or WeightsInvalid for another machine's files."""
        if self.foreign:  # the same path may be another file on this machine
            use_files(self.config.encoders)
            for source in {source.path: source for source in self.weights.values() if source.path}.values():
                if hash_of_weights(source) != source.sha256:
                    raise WeightsInvalid(f"{source.path} is not the same file as on the machine that started the run")
        with open_session(self.config, self.run, dict(self.weights)) as session:
            yield partial(self._do, _opened(self.store), session)

    def _do(self, store: FeatureStore, session: Session, job: Job, context: JobContext) -> Result:
        """One video, unless another run is making these features of it, or has dealt with it. Raises StoreFailed.

        Waits where another run is making other features of it.
        """
        features = job.features or self.config.features
        while True:
            with stop_on_store_error(store), claim(store.path, job.trial, features=features) as mine:
                if mine:
                    return self._do_claimed(store, session, job, context)
                others = claimed_features(store.path, job.trial)
            if others is not None and (not others or set(features) <= set(others)):
                return None
            context.check()
            time.sleep(_ASK_AGAIN_S)

    def _do_claimed(self, store: FeatureStore, session: Session, job: Job, context: JobContext) -> Result:
        """What the store still lacks of a video, now that nobody else is at it."""
        if not self.overwrite:
            newer = read_failures(store)[self.failures_known :]
            if any(record.trial == job.trial and same_file(job.video, record) for record in newer):
                return None  # another run has found it bad since the plan was made
        stands = standing(store, job, self.config, self.weights, self.overwrite)
        if not stands.features:
            return None
        reason = ""  # nobody asked for that: the plan was made before it was there
        if stands.lost:
            reason = losing_line({job.trial: stands.lost})
        elif stands.differences and not self.replace:
            named = "; ".join(stands.differences)
            reason = f"another run has made it meanwhile ({named}); --replace makes it anew"
        if reason:
            return Failure(job.name, job.trial, Stage.PLAN, flat(reason), job.video)
        try:
            return attempt(job_for(job, stands), store, session, self.run, context)
        except ClaimLost as error:  # tried again it is left to whoever has it, or has done it
            reason = f"{error}; nothing was written"
            return Failure(job.name, job.trial, Stage.CLAIM, reason, job.video, is_transient=True)


def run_plan(
    plan: Plan,
    task: ExtractTask,
    target: ExecutionTarget,
    retries: int,
    stop: StopRequest,
    reporter: Reporter,
    summary: Summary,
) -> None:
    """Do every job of the plan, into `summary`, until all are done or `stop` is set.

    Raises StoreFailed when the store cannot be written any more, WorkerUnfit where a cluster cannot do the jobs.
    """
    started_s = time.monotonic()
    store = _opened(task.store)
    jobs = list(plan.jobs)
    if not target.in_process:
        task, jobs = _to_travel(task, jobs, target)
    stop.left = [task.name(job) for job in jobs]  # while networks are loaded nothing has ended either
    stop.on_abandon = partial(release_all, store, Owner.current())
    reporter.begin(len(jobs), target.starting)
    # How many videos at once, unless somebody has said: several where a GPU fills its batches across them, else one.
    # 0: each worker sees for itself whether it has a GPU.
    at_once = task.run.videos_at_once
    if not at_once and not target.in_process:
        at_once = int(task.run.device == "cpu")
    elif not at_once and not task.config.networks:
        at_once = 1
    elif not at_once:
        from ...encoders.engine import choose_device  # noqa: PLC0415 - torch only where it is used

        at_once = jobs_at_once(0, int(choose_device(task.run.device).type == "cuda"))
    try:
        # A GPU that is named by its number is the one for all.
        own_gpus = task.run.device in ("auto", "cuda")
        with open_executor(target, task, at_once, own_gpus, stop) as executor:
            run_jobs(task, jobs, executor, stop, _RunMonitor(store, reporter, summary), retries)
    finally:
        reporter.end()
        summary.seconds = time.monotonic() - started_s


class _RunMonitor:
    """What becomes of the jobs goes into the summary, and to the screen."""

    def __init__(self, store: FeatureStore, reporter: Reporter, summary: Summary) -> None:
        self._store, self._reporter, self._summary = store, reporter, summary
        self.started, self.interrupted, self.tick = reporter.start, reporter.drop, reporter.tick

    def progressed(self, job: Job, words: tuple[Any, ...]) -> None:
        self._reporter.progress(job, *words)

    def ended(self, job: Job, result: Result | WorkerLost) -> None:
        outcome = self._bury(job, result) if isinstance(result, WorkerLost) else result
        with stop_on_store_error(self._store):
            self._summary.add(outcome, job, self._store)
        self._reporter.finish(job, outcome)

    def retried(self, job: Job, result: Result | WorkerLost) -> None:
        failure = self._bury(job, result) if isinstance(result, WorkerLost) else result
        self._reporter.retried(job, failure.reason if isinstance(failure, Failure) else "")

    def _bury(self, job: Job, lost: WorkerLost) -> Failure:
        """What a dead worker has left behind must not keep others off its videos."""
        release_all(self._store, lost.owner)
        return Failure(job.name, job.trial, Stage.WORKER, lost.reason, job.video)


def _opened(store: FeatureStore | str) -> FeatureStore:
    return FeatureStore(store, mode="a") if isinstance(store, str) else store


def _to_travel(task: ExtractTask, jobs: list[Job], target: ExecutionTarget) -> tuple[ExtractTask, list[Job]]:
    """The same for processes in another folder; the largest jobs first, so that the workers end about together."""
    weights = {
        name: replace(source, path=source.path.absolute()) if source.path else source
        for name, source in task.weights.items()
    }
    store = task.store if isinstance(task.store, str) else task.store.path
    store = store if "://" in store else os.path.abspath(store)
    run = replace(task.run, threads=task.run.threads or target.threads())
    jobs = [
        replace(
            job,
            video=job.video.absolute(),
            crops=job.crops.absolute() if job.crops else None,
            words=job.words.absolute() if job.words else None,
            sound=job.sound.absolute() if job.sound else None,
        )
        for job in jobs
    ]
    jobs.sort(key=lambda job: (-job.size_bytes, job.trial))
    return replace(task, store=store, weights=weights, run=run, foreign=target.workers == 1), jobs
