"""Runs as jobs: one fold and one seed each, here or on a cluster; one that fails does not hold up the others.

What travels is small: which run, its settings, names of trials and folders; back come the lines that report it.
Features are read by each process, once; networks, predictions and pictures go into the run's folder.
Tested by tests/fusion/runs/test_work.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ...batch.loop import Listener, run_jobs
from ...batch.protocols import JobContext
from ...batch.signals import StopRequest
from ...batch.target import ExecutionTarget, open_executor
from ...batch.torch_errors import ComputeError, torch_errors
from ...encoders.weights.resolve import WeightSource
from ...features_store.claims.claims import ClaimLost, release_folder
from ...features_store.disk.atomic import remove_file, remove_tree, write_json
from ...features_store.disk.owner import Owner
from ...features_store.interchange.result_files import made
from ...features_store.labels.corpus import Corpus
from ...features_store.store import FeatureStore
from ...shell.progress import say, shown, silent
from ...shell.text import one_line
from ..artifacts.folder import environment, read_description, run_lock, write_description
from ..artifacts.state import FINISHED, TRAINING, clear_results
from ..config import LESS_MEMORY, Figures, RunConfig, TrainConfig
from ..data.matching import frame_times
from ..data.runtime import alone_in_process, threads
from ..finetuning.learner import init_tuned, open_backbones, views_of
from ..folds.manifest import Manifest
from ..results.plots import draw_history, draw_predictions
from ..results.prediction_files import write_prediction
from ..results.report import report_lines
from ..results.tables import number
from ..tasks.table import TASKS
from ..training.learner import Learner, init_learner
from ..training.s4_window import LEAKY
from ..training.stitch import valid_by_trial
from ..training.train import Outcome, best_row, train
from .crossval import RunSpec, differing, pending_runs, refusal
from .experiment import DataKey, Experiment, data_key, open_experiment
from .loggers import make_watchers


@dataclass(frozen=True)
class Trained:
    """How a run ended: best epoch, epochs, why it ended, its report as lines; notes on the features."""

    best: int
    epochs: int
    reason: str
    report: tuple[str, ...]
    features: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failed:
    """Why a run failed, and whether trying again may help: it goes on from its last saved epoch."""

    reason: str
    is_transient: bool = False


# None: another call is training it, or has done it.
Result = Trained | Failed | None


@dataclass(frozen=True)
class TrainTask:
    """What is done for each run, in whatever process: it travels to every worker.

    `store`: open in the call's own process; its path or URL for the processes of a cluster. `at`: the folder that
    their paths are relative to. `replace`: a folder that holds another run begins anew. `command`: the typed line.
    `config`: settings of the run that is done first; those of others may name other features, which are read when
    the first of them is done. `extra`: further labels, only to train on. `weights`: of the networks that are tuned, by
    modality.
    """

    store: FeatureStore | str
    corpus: Corpus
    manifest: Manifest
    folds: tuple[int, ...]
    config: TrainConfig
    run: RunConfig
    allow_other_features: bool
    plots: bool
    tensorboard: bool
    alone: bool
    allow_length_difference: bool = False
    at: Path | None = None
    replace: bool = False
    command: str = ""
    extra: Corpus | None = None
    weights: Mapping[str, WeightSource] = field(default_factory=dict)
    figures: Figures = "png"

    def name(self, job: RunSpec) -> str:
        """Fold and seed; of a lone run also how to resume it, which a second call does not do by itself."""
        return f"{job.name} (--resume goes on in {job.folder})" if self.alone else job.name

    def is_transient(self, result: Result) -> bool:
        """Whether trying again may help."""
        return isinstance(result, Failed) and result.is_transient

    @contextmanager
    def prepare(self) -> Iterator[Callable[[RunSpec, JobContext], Result]]:
        """Read the features of the first run. Raises what `open_experiment` does."""
        held: dict[DataKey, Experiment] = {}

        def experiment_of(config: TrainConfig) -> Experiment:
            if data_key(config) not in held:
                held.clear()  # before it is asked how much room there is
                held[data_key(config)] = experiment = open_experiment(
                    store,
                    self.corpus,
                    self.manifest,
                    self.folds,
                    config,
                    self.run,
                    self.allow_other_features,
                    shown if self.at is None else silent,
                    self.allow_length_difference,
                    self.extra,
                    views_of(config, self.weights),
                )
                if self.at is None:
                    for line in experiment.lines():
                        say(line)
            return held[data_key(config)]

        with threads(self.run.threads):
            store = FeatureStore(self.store) if isinstance(self.store, str) else self.store
            experiment_of(self.config)
            yield partial(self._do, store, experiment_of)

    def _do(
        self,
        store: FeatureStore,
        experiment_of: Callable[[TrainConfig], Experiment],
        job: RunSpec,
        context: JobContext,
    ) -> Result:
        """One run, unless another call is training it or has done it since. Raises Cancelled, OSError."""
        spec = replace(job, folder=self.at / job.folder) if self.at is not None else job
        with alone_in_process(context), threads(self.run.threads), run_lock(spec.folder) as mine:
            try:
                if not mine:
                    return None
                experiment = experiment_of(spec.config)
                others = differing([spec], lambda *of: experiment.checked, self.run, self.allow_other_features)
                if others and not self.replace:
                    raise ValueError(refusal(others))
                if others:
                    clear_results(spec.folder)
                if not pending_runs([spec], resume=True, anew=others):
                    return None
                with torch_errors(LESS_MEMORY):
                    outcome = self._train(store, experiment, spec, context)
            except ClaimLost as error:
                return Failed(f"{error}; this call has stopped, and writes nothing more there")
            except ValueError as error:
                return Failed(one_line(error), isinstance(error, ComputeError) and error.is_transient)
        lines = () if self.at is None else tuple(experiment.lines())
        best = best_row(outcome.history)["epoch"]
        leaky = spec.config.protocol == "s4-window"
        report = [f"{LEAKY}: P {number(outcome.report.p)}"] if leaky else report_lines(outcome.report, 0)
        return Trained(best, len(outcome.history), outcome.reason, tuple(report), lines)

    def _train(self, store: FeatureStore, experiment: Experiment, spec: RunSpec, context: JobContext) -> Outcome:
        """One run, shown on the screen; it has finished once predictions and pictures are written.

        Raises ValueError if it goes on and the features were of other widths.
        """
        data, folder, task = experiment.data, spec.folder, TASKS[spec.config.task]
        record = environment(data, self.run, self.command)
        described = experiment.describe(spec.config, spec.fold)
        if (folder / TRAINING).is_file():  # it goes on, with its own statistics
            before = read_description(folder)
            if before.features.shapes != described.features.shapes:
                raise ValueError(
                    f"{folder} was trained on features of other widths than there are now; name another --out"
                )
            described = replace(described, statistics=before.statistics)
            remove_file(folder / FINISHED)
        else:
            clear_results(folder)
        write_description(folder, described, record)
        watchers = make_watchers(
            spec.name, spec.config.max_epochs, folder, self.tensorboard, context=context, task=task
        )
        try:
            init: Callable[..., Learner] = init_learner
            if spec.config.finetune is not None:
                backbones = open_backbones(spec.config, self.weights, data.labels.device)
                init = partial(init_tuned, described=described, backbones=backbones)
            outcome = train(described, data, self.run, folder, watchers, init)
            remove_file(folder / FINISHED)  # which fails if another process has taken the folder over
            for name in ("predictions", "plots"):  # of fewer epochs
                remove_tree(folder / name)
            valid = valid_by_trial(data, outcome.predictions)
            for name, rows in outcome.predictions.items():
                time_s = frame_times(store, data.sources[name])
                write_prediction(folder / "predictions", name, task.columns, rows, time_s, valid[name], task.limits)
            if self.plots:
                about = made(
                    command=self.command,
                    runs=[os.path.abspath(folder)],
                    store=experiment.checked.features.store,
                    annotations=experiment.checked.annotations,
                    smoothing="none",
                    UNTRAINED=experiment.checked.features.untrained,
                )
                draw_history(folder, outcome.history, task, about, self.figures)
                sources = [data.sources[name] for name in outcome.predictions]
                if sources:
                    drawn = outcome.predictions, outcome.report, about, self.figures
                    draw_predictions(folder / "plots", store, sources, *drawn)
            ended = {"reason": outcome.reason, "epochs": len(outcome.history), "parameters": outcome.parameters}
            write_json(folder / FINISHED, ended)
            return outcome
        finally:
            for watcher in watchers:
                watcher.close()


def at_folder(corpus: Corpus, at: Path) -> Corpus:
    """The same labels for processes that work in another folder than `at`."""
    files = {name: at / file for name, file in corpus.files.items()}
    return replace(corpus, root=at / corpus.root, files=files)


def do_runs(
    runs: Sequence[RunSpec],
    task: TrainTask,
    target: ExecutionTarget,
    retries: int,
    stop: StopRequest,
    listener: Listener[RunSpec, Result],
) -> None:
    """Do every run, until all have ended or `stop` is set.

    Raises what `open_experiment` does, OSError if a folder cannot be written, WorkerUnfit if a cluster cannot do the
    runs, Terminated.
    """
    if not target.in_process:  # for processes that work in another folder, and open the store themselves
        at = Path.cwd()
        path = task.store if isinstance(task.store, str) else task.store.path
        task = replace(
            task,
            store=path if "://" in path else str(at / path),
            corpus=at_folder(task.corpus, at),
            extra=None if task.extra is None else at_folder(task.extra, at),
            run=replace(task.run, threads=task.run.threads or target.threads(), processes=target.processes()),
            at=at,
        )
    stop.on_abandon = partial(_release, runs)
    with open_executor(target, task, 1, task.run.device != "cpu", stop) as executor:
        run_jobs(task, runs, executor, stop, listener, retries)
    stop.raise_if_set()


def _release(runs: Iterable[RunSpec]) -> None:
    """This process is about to end, and must not keep others off its runs."""
    for run in runs:
        release_folder(run.folder, Owner.current())
