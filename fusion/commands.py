"""`avfuse train`: options to a request, the runs that are left, the table at the end, exit code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import click

from ..batch.protocols import WorkerUnfit
from ..batch.signals import StopRequest, listening
from ..batch.target import ExecutionTarget, target_of
from ..batch.torch_errors import torch_errors
from ..features_store.interchange.result_files import check_place, command_line
from ..shell.errors import clean_errors
from ..shell.options import GroupedCommand
from ..shell.text import counted, untrained_line
from .config import LESS_MEMORY
from .folds.options import manifest_of
from .options import GROUPS, TrainRequest, config_to_describe, train_options, train_request
from .tasks.table import TASKS

if TYPE_CHECKING:
    from ..features_store.store import FeatureStore
    from .config import TrainConfig
    from .runs.crossval import RunSpec
    from .runs.experiment import Checked
    from .runs.monitor import RunMonitor
    from .runs.work import TrainTask

    Check = Callable[[tuple[int, ...]], Checked]

_say = partial(click.echo, err=True)


@click.command(cls=GroupedCommand, groups=GROUPS)
@train_options
@clean_errors(WorkerUnfit)
@torch_errors(LESS_MEMORY)
def train(**options: Any) -> None:
    """Train the fusion head on one fold, or on all of them, of the features in a store.

    RUN then holds the best network, its settings, scores (metrics.json), history.csv, predictions and plots. A
    second call leaves finished runs alone. Exit codes: 0 all done, or left to another call that is training it; 1
    could not start, or a run failed while the others went on; 2 wrong usage; 130 and 143 stopped by SIGINT and
    SIGTERM.
    """
    if options.pop("describe"):
        _describe(options)
        return
    with listening("runs") as stop:
        _train(train_request(options), stop)


def _describe(options: Mapping[str, Any]) -> None:
    from ..features_store.store import FeatureStore
    from .describe import describe, shapes_of

    config = config_to_describe(options)
    store = None if options["store"] is None else FeatureStore(options["store"])
    found = describe(config, shapes_of(config.modalities, store))
    click.echo(json.dumps(found.as_json(), indent=2) if options["as_json"] else "\n".join(found.lines()))


def _train(request: TrainRequest, stop: StopRequest) -> None:
    from ..features_store.store import FeatureStore
    from .results.folder import check_among_labels
    from .runs.crossval import differing, pending_runs, plan_runs, refusal, shard_of
    from .runs.experiment import check_experiment
    from .runs.loggers import usable, wants_tensorboard
    from .runs.work import TrainTask

    target = target_of(request.workers, request.scheduler, request.jobqueue)
    config, run_config, out = request.config(), request.run_config(), request.out
    kind = TASKS[config.task].labels
    corpus, manifest = manifest_of(
        request.annotations, request.folds, request.group, request.groups, request.manifest, kind
    )
    check_place(out)
    check_among_labels(out, corpus)
    folds = [fold.number for fold in manifest.folds] if request.fold is None else [request.fold]
    whole = plan_runs(out, folds, range(config.seed, config.seed + request.seeds), config)
    runs = shard_of(whole, *request.shard)
    store = FeatureStore(request.store)
    check = cache(
        partial(
            check_experiment,
            store,
            corpus,
            manifest,
            config=config,
            allow_other_features=request.allow_other_features,
            allow_length_difference=request.allow_length_difference,
        )
    )
    todo = _plan(runs, check, request, several=len(whole) > 1)
    task = TrainTask(
        store=store,
        corpus=corpus,
        manifest=manifest,
        folds=tuple(sorted({run.fold for run in todo})),
        config=config,
        run=run_config,
        allow_other_features=request.allow_other_features,
        plots=request.plots and usable("matplotlib.backends.backend_agg", "pictures"),
        tensorboard=wants_tensorboard(request.tensorboard),
        alone=any(run.folder == out for run in todo),
        allow_length_difference=request.allow_length_difference,
        replace=request.replace,
        command=command_line(),
    )
    monitor = _do_all(todo, task, store, check, target, request.retries, stop)
    done = [run for run in runs if run not in monitor.failed and run not in monitor.elsewhere]
    if monitor.elsewhere:  # those that another call has finished, on the same data as this one's, count
        left = pending_runs(monitor.elsewhere, resume=True)
        ended = [run for run in monitor.elsewhere if run not in left]
        if other := differing(ended, check, run_config, request.allow_other_features):
            _say(f"note: not counted: {refusal(other)}")
        done += [run for run in ended if run not in other]
    if done or monitor.elsewhere or not monitor.failed:
        _print_results(sorted(done, key=runs.index), check, config, request, several=len(whole) > 1)
    if monitor.failed:
        reasons = "; ".join(f"{run.folder}: {why}" for run, why in monitor.failed.items())
        count = f"{len(monitor.failed)} of {counted(len(runs), 'run')} failed: " if len(runs) > 1 else ""
        raise click.ClickException(f"{count}{reasons}")


def _plan(runs: Sequence[RunSpec], check: Check, request: TrainRequest, several: bool) -> list[RunSpec]:
    """The runs that are left, with notes. Raises ValueError on one whose folder holds another, without --replace.

    --allow-other-features leaves those alone that differ in features only.
    """
    from .runs.crossval import differing, is_short, pending_runs, refusal

    anew = differing(runs, check, request.run_config())
    if request.allow_other_features:
        for run, differences in anew.items():
            if not differences.without_features():
                _say(f"note: {differences.of(run.folder)}; it is left as it is, or goes on from there")
        anew = {run: kept for run, each in anew.items() if (kept := each.without_features())}
    if anew and not request.replace:
        raise ValueError(refusal(anew))
    todo = pending_runs(runs, request.resume or several, anew)
    if short := [run for run in runs if run not in todo and is_short(run)]:
        _say(f"note: {len(short)} finished with fewer epochs than asked for now; --resume goes on")
    if anew:
        (first, differences), *more = anew.items()
        others = f", and so are {len(more)} more of these runs" if more else ""
        _say(f"note: {differences.of(first.folder)}; it is trained anew{others}")
    _say(f"{counted(len(todo), 'run')} to do, {len(runs) - len(todo)} done before")
    return todo


def _do_all(
    todo: Sequence[RunSpec],
    task: TrainTask,
    store: FeatureStore,
    check: Check,
    target: ExecutionTarget,
    retries: int,
    stop: StopRequest,
) -> RunMonitor:
    """Do each run, in this process or on a cluster; one of several that fails does not hold up the others."""
    from ..features_store.records.status import untrained_features
    from .runs.monitor import RunMonitor
    from .runs.work import do_runs

    # What a user should know before anything is read, or is sent to a cluster.
    lines = []
    if todo and (line := untrained_line(untrained_features(store))):
        lines.append(line)
    if todo and not target.in_process:
        lines += [f"note: {note}" for note in check(task.folds).notes]
    for line in lines:
        _say(line)
    monitor = RunMonitor(len(todo), _say, lines)
    if todo:
        if target.starting:
            _say(target.starting)
        do_runs(todo, task, target, retries, stop, monitor)
    return monitor


def _print_results(
    done: Sequence[RunSpec], check: Check, config: TrainConfig, request: TrainRequest, several: bool
) -> None:
    """The table of the runs, of `several` with those of other calls below --out, and the scores as JSON."""
    from .artifacts.state import read_metrics
    from .runs.crossval import differing, sum_up

    @cache
    def belongs(run: RunSpec) -> bool:
        """Whether a finished run of another call belongs in the table; one that does not is named, once."""
        if run in done:
            return True
        reasons = []
        try:
            other = differing([run], check, request.run_config(), request.allow_other_features)
            reasons += [each.of(run.folder) for each in other.values()]
        except ValueError as error:  # a fold that no longer exists, for example
            reasons.append(f"{run.folder}: {error}")
        for reason in reasons:
            _say(f"note: not in the table: {reason}")
        return not reasons

    if lines := sum_up(request.out, done, config, belongs, alone=not several):
        click.echo("\n".join(lines), err=request.as_json)
    if request.as_json:
        runs = [{"fold": run.fold, "seed": run.config.seed, "run": str(run.folder)} for run in done]
        click.echo(json.dumps([{**each, **read_metrics(run.folder)} for each, run in zip(runs, done, strict=True)]))
