"""Runs as jobs: one fold and one seed each, here or on a cluster; one that fails does not hold up the others.

What travels is small: which run, its settings, names of trials and folders; back come the lines that tell of it.
Features are read by each process, once; networks, predictions and pictures go into the run's folder.
Tested by tests/fusion/test_grid.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click

from ..batch.loop import Listener, run_jobs
from ..batch.stopping import Stop
from ..batch.torch_errors import ComputeError, torch_errors
from ..batch.where import Where, open_place
from ..batch.work import Pulse
from ..features_store.claims import ClaimLost
from ..features_store.corpus import Corpus
from ..features_store.disk import remove_tree
from ..features_store.errors import one_line
from ..features_store.leaving import leave_folder
from ..features_store.owner import Owner
from ..features_store.result_files import made
from ..features_store.store import FeatureStore
from .checkpoint import clear_results, unmark_finished
from .config import LESS_MEMORY, RunConfig, TrainConfig
from .crossval import Planned, begin_run, differing, do_run, refusal, still_to_do, without_features
from .environment import environment
from .experiment import Experiment, open_experiment
from .in_hand import in_hand
from .manifest import Manifest
from .one_process import alone_in_process, threads
from .pictures import draw_history, draw_predictions
from .prediction_files import write_prediction
from .progress import shown, silent
from .report import report_lines
from .sources import frame_times
from .stitch import valid_by_trial
from .train import Outcome, best_row
from .watch import make_watcher


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
    may_pass: bool = False


# None: another call is training it, or has done it.
Result = Trained | Failed | None


@dataclass(frozen=True)
class TrainWork:
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

    def name(self, job: Planned) -> str:
        """Fold and seed; of a lone run also how to go on with it, which a second call does not do by itself."""
        return f"{job.name} (--resume goes on in {job.folder})" if self.alone else job.name

    def may_pass(self, result: Result) -> bool:
        """Whether trying again may help."""
        return isinstance(result, Failed) and result.may_pass

    @contextmanager
    def prepare(self) -> Iterator[Callable[[Planned, Pulse], Result]]:
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

    def _do(self, store: FeatureStore, experiment: Experiment, job: Planned, pulse: Pulse) -> Result:
        """One run, unless another call is training it or has done it since. Raises Stopped, OSError."""
        planned = replace(job, folder=self.at / job.folder) if self.at is not None else job
        with alone_in_process(pulse), threads(self.run.threads), in_hand(planned.folder) as mine:
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
                if not still_to_do([planned], resume=True, anew=told):
                    return None
                with torch_errors(LESS_MEMORY):
                    outcome = self._train(store, experiment, planned, pulse)
            except ClaimLost as error:
                return Failed(f"{error}; this call has stopped, and writes nothing more there")
            except ValueError as error:
                return Failed(one_line(error), isinstance(error, ComputeError) and error.may_pass)
        lines = () if self.at is None else tuple(experiment.lines())
        best = best_row(outcome.history)["epoch"]
        report = tuple(report_lines(outcome.report, 0))
        return Trained(best, len(outcome.history), outcome.reason, report, lines)

    def _train(self, store: FeatureStore, experiment: Experiment, planned: Planned, pulse: Pulse) -> Outcome:
        """One run with its bar, pictures and predictions."""
        made = environment(experiment.data, self.run, self.command)
        described = begin_run(planned.folder, experiment.describe(planned.config, planned.fold), made)
        watcher = make_watcher(planned.name, planned.config.max_epochs, planned.folder, self.tensorboard, pulse=pulse)
        try:
            keep = partial(self._keep, store, experiment, planned)
            return do_run(described, planned.folder, experiment, self.run, watcher, keep)
        finally:
            watcher.close()

    def _keep(self, store: FeatureStore, experiment: Experiment, planned: Planned, outcome: Outcome) -> None:
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
    runs: Sequence[Planned],
    work: TrainWork,
    where: Where,
    retries: int,
    stop: Stop,
    listener: Listener[Planned, Result],
) -> None:
    """Do every run, until all have ended or `stop` is set.

    Raises what `open_experiment` does, OSError where a folder cannot be written, WorkerUnfit where a cluster
    cannot do the runs, StoppedBySignal.
    """
    if not where.is_here:
        work = _to_travel(work, where)
    stop.on_abandon = partial(_leave, runs)
    with open_place(where, work, 1, work.run.device != "cpu", stop) as place:
        run_jobs(work, runs, place, stop, listener, retries)
    stop.raise_if_set()


def _leave(runs: Iterable[Planned]) -> None:
    """This process is about to end, and must not keep others off its runs."""
    for run in runs:
        leave_folder(run.folder, Owner.current())


def _to_travel(work: TrainWork, where: Where) -> TrainWork:
    """The same for processes that work in another folder."""
    at = Path.cwd()
    files = {name: at / path for name, path in work.corpus.files.items()}
    return replace(
        work,
        store=work.store if "://" in work.store else str(at / work.store),
        corpus=replace(work.corpus, root=at / work.corpus.root, files=files),
        run=replace(work.run, threads=work.run.threads or where.threads(), processes=where.processes()),
        at=at,
    )
