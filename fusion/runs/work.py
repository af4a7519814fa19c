"""Runs as jobs: one fold and one seed each, here or on a cluster; one that fails does not hold up the others.

What travels is small: which run, its settings, names of trials and folders; back come the lines that tell of it.
Features are read by each process, once; networks, predictions and pictures go into the run's folder.
Tested by tests/fusion/runs/test_work.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click

from ...batch.loop import Listener, run_jobs
from ...batch.protocols import JobContext
from ...batch.signals import StopRequest
from ...batch.target import ExecutionTarget, open_executor
from ...batch.torch_errors import ComputeError, torch_errors
from ...features_store.claims.claims import ClaimLost, release_folder
from ...features_store.disk.atomic import remove_tree
from ...features_store.disk.owner import Owner
from ...features_store.interchange.result_files import made
from ...features_store.labels.corpus import Corpus
from ...features_store.store import FeatureStore
from ...shell.progress import shown, silent
from ...shell.text import one_line
from ..artifacts.folder import environment, run_lock
from ..artifacts.state import clear_results, unmark_finished
from ..config import LESS_MEMORY, RunConfig, TrainConfig
from ..data.matching import frame_times
from ..data.runtime import alone_in_process, threads
from ..folds.manifest import Manifest
from ..results.plots import draw_history, draw_predictions
from ..results.prediction_files import write_prediction
from ..results.report import report_lines
from ..training.stitch import valid_by_trial
from ..training.train import Outcome, best_row
from .crossval import RunSpec, begin_run, differing, do_run, pending_runs, refusal, without_features
from .experiment import Experiment, open_experiment
from .loggers import make_watcher


@dataclass(frozen=True)
class Trained:
    """What a run came to: best epoch, epochs, why it ended, its report as lines; what to know of the features."""

    best: int
    epochs: int
    reason: str
    report: tuple[str, ...]
    features: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failed:
    """Why a run came to nothing, and whether trying again may help: it goes on from its last saved epoch."""

    reason: str
    is_transient: bool = False


# None: another call is training it, or has done it.
Result = Trained | Failed | None


@dataclass(frozen=True)
class TrainTask:
    """What is done for each run, in whatever process: it travels to every worker.

    `at`: the folder that paths are relative to, for the processes of a cluster; None in the call's own process.
    `replace`: a folder that holds another run begins anew. `command`: the line that was typed.
    """

    store: str
    corpus: Corpus
    manifest: Manifest
    folds: tuple[int, ...]
    config: TrainConfig
    run: RunConfig
    allow_other: bool
    plots: bool
    tensorboard: bool
    alone: bool
    allow_length_difference: bool = False
    at: Path | None = None
    replace: bool = False
    command: str = ""

    def name(self, job: RunSpec) -> str:
        """Fold and seed; of a lone run also how to go on with it, which a second call does not do by itself."""
        return f"{job.name} (--resume goes on in {job.folder})" if self.alone else job.name

    def is_transient(self, result: Result) -> bool:
        """Whether trying again may help."""
        return isinstance(result, Failed) and result.is_transient

    @contextmanager
    def prepare(self) -> Iterator[Callable[[RunSpec, JobContext], Result]]:
        """Read the features. Raises what `open_experiment` does."""
        with threads(self.run.threads):
            store = FeatureStore(self.store)
            experiment = open_experiment(
                store,
                self.corpus,
                self.manifest,
                self.folds,
                self.config,
                self.run,
                self.allow_other,
                shown if self.at is None else silent,
                self.allow_length_difference,
            )
            if self.at is None:
                for line in experiment.lines():
                    click.echo(line, err=True)
            yield partial(self._do, store, experiment)

    def _do(self, store: FeatureStore, experiment: Experiment, job: RunSpec, context: JobContext) -> Result:
        """One run, unless another call is training it or has done it since. Raises Cancelled, OSError."""
        planned = replace(job, folder=self.at / job.folder) if self.at is not None else job
        with alone_in_process(context), threads(self.run.threads), run_lock(planned.folder) as mine:
            try:
                if not mine:
                    return None
                told = differing([planned], lambda folds: experiment.checked, self.run)
                if self.allow_other:
                    told = without_features(told)
                if told and not self.replace:
                    raise ValueError(refusal(told))
                if told:
                    clear_results(planned.folder)
                if not pending_runs([planned], resume=True, anew=told):
                    return None
                with torch_errors(LESS_MEMORY):
                    outcome = self._train(store, experiment, planned, context)
            except ClaimLost as error:
                return Failed(f"{error}; this call has stopped, and writes nothing more there")
            except ValueError as error:
                return Failed(one_line(error), isinstance(error, ComputeError) and error.is_transient)
        lines = () if self.at is None else tuple(experiment.lines())
        best = best_row(outcome.history)["epoch"]
        report = tuple(report_lines(outcome.report, 0))
        return Trained(best, len(outcome.history), outcome.reason, report, lines)

    def _train(self, store: FeatureStore, experiment: Experiment, planned: RunSpec, context: JobContext) -> Outcome:
        """One run with its bar, pictures and predictions."""
        made = environment(experiment.data, self.run, self.command)
        described = begin_run(planned.folder, experiment.describe(planned.config, planned.fold), made)
        watcher = make_watcher(
            planned.name, planned.config.max_epochs, planned.folder, self.tensorboard, context=context
        )
        try:
            keep = partial(self._keep, store, experiment, planned)
            return do_run(described, planned.folder, experiment, self.run, watcher, keep)
        finally:
            watcher.close()

    def _keep(self, store: FeatureStore, experiment: Experiment, planned: RunSpec, outcome: Outcome) -> None:
        """Predictions of the validation trials, and pictures."""
        outputs = planned.config.outputs
        unmark_finished(planned.folder)  # which fails where another process has taken the folder over
        for name in ("predictions", "plots"):  # of fewer epochs
            remove_tree(planned.folder / name)
        valid = valid_by_trial(experiment.data, outcome.predictions)
        for name, rows in outcome.predictions.items():
            time_s = frame_times(store, experiment.data.sources[name])
            write_prediction(planned.folder / "predictions", name, outputs, rows, time_s, valid[name])
        if self.plots:
            features = experiment.checked.features
            about = made(
                command=self.command,
                runs=[os.path.abspath(planned.folder)],
                store=features.store,
                annotations=experiment.checked.annotations,
                smoothing="none",
                UNTRAINED=features.untrained,
            )
            sources = [experiment.data.sources[name] for name in outcome.predictions]
            draw_history(planned.folder, outcome.history, about)
            folder, predictions = planned.folder / "plots", outcome.predictions
            draw_predictions(folder, store, sources, predictions, outputs, outcome.report, about)


def do_runs(
    runs: Sequence[RunSpec],
    task: TrainTask,
    target: ExecutionTarget,
    retries: int,
    stop: StopRequest,
    listener: Listener[RunSpec, Result],
) -> None:
    """Do every run, until all have ended or `stop` is set.

    Raises what `open_experiment` does, OSError target a folder cannot be written, WorkerUnfit target a cluster
    cannot do the runs, Terminated.
    """
    if not target.in_process:
        task = _to_travel(task, target)
    stop.on_abandon = partial(_leave, runs)
    with open_executor(target, task, 1, task.run.device != "cpu", stop) as executor:
        run_jobs(task, runs, executor, stop, listener, retries)
    stop.raise_if_set()


def _leave(runs: Iterable[RunSpec]) -> None:
    """This process is about to end, and must not keep others off its runs."""
    for run in runs:
        release_folder(run.folder, Owner.current())


def _to_travel(task: TrainTask, target: ExecutionTarget) -> TrainTask:
    """The same for processes that work in another folder."""
    at = Path.cwd()
    files = {name: at / path for name, path in task.corpus.files.items()}
    return replace(
        task,
        store=task.store if "://" in task.store else str(at / task.store),
        corpus=replace(task.corpus, root=at / task.corpus.root, files=files),
        run=replace(task.run, threads=task.run.threads or target.threads(), processes=target.processes()),
        at=at,
    )
