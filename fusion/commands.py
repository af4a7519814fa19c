"""`avfuse train`: parse, call, print, exit code."""

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
from .options import GROUPS, run_config, train_options

if TYPE_CHECKING:
    from ..features_store.labels.corpus import Corpus
    from .config import TrainConfig
    from .folds.manifest import Manifest
    from .runs.crossval import RunSpec
    from .runs.experiment import Checked
    from .runs.identity import Differences
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
    with listening("runs") as stop:
        _train(options, stop)


def _train(options: dict[str, Any], stop: StopRequest) -> None:
    from ..features_store.store import FeatureStore
    from .folds.options import manifest_of
    from .results.folder import check_among_labels
    from .runs.crossval import pending_runs, plan_runs, shard_of
    from .runs.experiment import check_experiment

    target = target_of(options["workers"], options["scheduler"], options["jobqueue"])
    config = _config(options)
    fold_words = ("annotations", "folds", "group", "groups", "manifest")
    corpus, manifest = manifest_of(**{name: options[name] for name in fold_words})
    numbers = [fold.number for fold in manifest.folds] if options["fold"] is None else [options["fold"]]
    seeds = range(config.seed, config.seed + options["seeds"])
    check_place(options["out"])
    check_among_labels(options["out"], corpus)
    whole = plan_runs(options["out"], numbers, seeds, config)
    runs = shard_of(whole, *options["shard"])

    @cache
    def check(folds: tuple[int, ...]) -> Checked:
        store = FeatureStore(options["store"])
        allowed = options["allow_other_features"], options["allow_length_difference"]
        return check_experiment(store, corpus, manifest, folds, config, *allowed)

    anew = _others(runs, check, options)
    todo = pending_runs(runs, options["resume"] or len(whole) > 1, anew)
    _tell_plan(runs, todo, anew)
    heard = _do_all(todo, corpus, manifest, config, target, stop, options)
    done = [planned for planned in runs if planned not in heard.failed and planned not in heard.elsewhere]
    done += _done_elsewhere(heard.elsewhere, check, options)
    if done or heard.elsewhere or not heard.failed:
        _tell_results(sorted(done, key=runs.index), check, config, options, several=len(whole) > 1)
    if heard.failed:
        told = "; ".join(f"{planned.folder}: {why}" for planned, why in heard.failed.items())
        raise click.ClickException(
            f"{len(heard.failed)} of {counted(len(runs), 'run')} failed: {told}" if len(runs) > 1 else told
        )


def _config(options: dict[str, Any]) -> TrainConfig:
    """The preset with what the options say. Raises click.UsageError on a wrong setting."""
    from .settings import preset, with_settings

    told = {"task": options["task"], "modalities": options["modalities"], "max_epochs": options["epochs"]}
    told = {name: str(value) for name, value in told.items() if value is not None}
    settings = dict(options["settings"])
    if twice := sorted(set(told) & set(settings)):
        raise click.UsageError(f"{', '.join(twice)}: given twice, as an option and by --set")
    if "seed" in settings:
        raise click.UsageError("give the seed by --seed")
    try:
        return with_settings(preset(options["preset"]), {**told, **settings, "seed": str(options["seed"])})
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _others(runs: Sequence[RunSpec], check: Check, options: dict[str, Any]) -> dict[RunSpec, Differences]:
    """Runs whose folder holds another one, which --replace trains anew. Raises ValueError on one without it.

    Other features alone are let pass by --allow-other-features, and told of.
    """
    from .runs.crossval import differing, refusal, without_features

    told = differing(runs, check, run_config(options))
    if options["allow_other_features"]:
        for planned, each in told.items():
            if not each.without_features():
                _say(f"note: {each.of(planned.folder)}; it is left as it is, or goes on from there")
        told = without_features(told)
    if told and not options["replace"]:
        raise ValueError(refusal(told))
    return told


def _done_elsewhere(runs: Sequence[RunSpec], check: Check, options: dict[str, Any]) -> list[RunSpec]:
    """Those that another call has finished, on the same data as this one's."""
    from .runs.crossval import differing, pending_runs, refusal, without_features

    left = pending_runs(runs, resume=True)
    ended = [planned for planned in runs if planned not in left]
    told = differing(ended, check, run_config(options))
    told = without_features(told) if options["allow_other_features"] else told
    if told:
        _say(f"note: not counted: {refusal(told)}")
    return [planned for planned in ended if planned not in told]


def _tell_plan(runs: Sequence[RunSpec], todo: Sequence[RunSpec], anew: Mapping[RunSpec, Differences]) -> None:
    from .runs.crossval import is_short

    short = [planned for planned in runs if planned not in todo and is_short(planned)]
    if short:
        _say(f"note: {len(short)} finished with fewer epochs than asked for now; --resume goes on")
    if anew:
        (planned, told), *more = anew.items()
        others = f", and so are {len(more)} more of these runs" if more else ""
        _say(f"note: {told.of(planned.folder)}; it is trained anew{others}")
    _say(f"{counted(len(todo), 'run')} to do, {len(runs) - len(todo)} done before")


def _do_all(
    todo: Sequence[RunSpec],
    corpus: Corpus,
    manifest: Manifest,
    config: TrainConfig,
    target: ExecutionTarget,
    stop: StopRequest,
    options: dict[str, Any],
) -> RunMonitor:
    """Each run, here or on a cluster; one of several that fails does not hold up the others."""
    from .runs.monitor import RunMonitor
    from .runs.work import do_runs

    work = _work(todo, corpus, manifest, config, options)
    heard = RunMonitor(len(todo), _say, _tell_features(work, target) if todo else ())
    if todo:
        if target.starting:
            _say(target.starting)
        do_runs(todo, work, target, options["retries"], stop, heard)
    return heard


def _work(
    todo: Sequence[RunSpec], corpus: Corpus, manifest: Manifest, config: TrainConfig, options: dict[str, Any]
) -> TrainTask:
    from .runs.loggers import usable, wants_tensorboard
    from .runs.work import TrainTask

    return TrainTask(
        store=options["store"],
        corpus=corpus,
        manifest=manifest,
        folds=tuple(sorted({planned.fold for planned in todo})),
        config=config,
        run=run_config(options),
        allow_other=options["allow_other_features"],
        plots=options["plots"] and usable("matplotlib.backends.backend_agg", "pictures"),
        tensorboard=wants_tensorboard(options["tensorboard"]),
        alone=any(planned.folder == options["out"] for planned in todo),
        allow_length_difference=options["allow_length_difference"],
        replace=options["replace"],
        command=command_line(),
    )


def _tell_features(work: TrainTask, target: ExecutionTarget) -> list[str]:
    """What a user should know before anything is read, or is sent to a cluster; the lines that were said."""
    from ..features_store.records.status import untrained_features
    from ..features_store.store import FeatureStore
    from .runs.experiment import check_experiment

    store = FeatureStore(work.store)
    lines = [line] if (line := untrained_line(untrained_features(store))) else []
    if not target.in_process:
        checked = check_experiment(
            store,
            work.corpus,
            work.manifest,
            work.folds,
            work.config,
            work.allow_other,
            work.allow_length_difference,
        )
        lines += [f"note: {note}" for note in checked.notes]
    for line in lines:
        _say(line)
    return lines


def _tell_results(
    done: Sequence[RunSpec], check: Check, config: TrainConfig, options: dict[str, Any], several: bool
) -> None:
    from .runs.crossval import sum_up, table_lines

    earlier = _Earlier(done, check, config, options)
    if several and (result := sum_up(options["out"], done, earlier)) is not None:
        click.echo("\n".join(table_lines(result)), err=options["as_json"])
    if options["as_json"]:
        click.echo(json.dumps(_results(done)))


class _Earlier:
    """Finished runs of other calls below --out that belong into the table; those on other data are told of, once."""

    def __init__(self, done: Sequence[RunSpec], check: Check, config: TrainConfig, options: dict[str, Any]) -> None:
        self._known = dict.fromkeys(done, True)
        self._check, self._config, self._options = check, config, options

    def __call__(self) -> list[RunSpec]:
        """They are looked for anew, since other calls go on."""
        from .runs.crossval import finished_below

        found = finished_below(self._options["out"], self._config)
        for planned in found:
            if planned not in self._known:
                self._known[planned] = self._belongs(planned)
        return [planned for planned in found if self._known[planned]]

    def _belongs(self, planned: RunSpec) -> bool:
        from .runs.crossval import differing, without_features

        try:
            told = differing([planned], self._check, run_config(self._options))
        except ValueError as error:  # a fold that there is no longer, for one
            _say(f"note: not in the table: {planned.folder}: {error}")
            return False
        if self._options["allow_other_features"]:
            told = without_features(told)
        for each in told.values():
            _say(f"note: not in the table: {each.of(planned.folder)}")
        return not told


def _results(runs: Sequence[RunSpec]) -> list[dict[str, Any]]:
    from .artifacts.state import read_metrics

    return [
        {"fold": each.fold, "seed": each.config.seed, "run": str(each.folder), **read_metrics(each.folder)}
        for each in runs
    ]
