"""`avfuse train`: parse, call, print, exit code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from ..batch.stopping import Stop, listening
from ..batch.torch_errors import torch_errors
from ..batch.where import Where, where_of
from ..batch.work import WorkerUnfit
from ..features_store.errors import clean_errors
from ..features_store.options import GroupedCommand
from ..features_store.text import counted, untrained_line
from .config import LESS_MEMORY
from .options import GROUPS, run_config, train_options

if TYPE_CHECKING:
    from ..features_store.corpus import Corpus
    from .config import TrainConfig
    from .crossval import Planned
    from .hearing import Hearing
    from .manifest import Manifest
    from .runs import TrainWork

_say = partial(click.echo, err=True)


@click.command(cls=GroupedCommand, groups=GROUPS)
@train_options
@clean_errors(WorkerUnfit)
@torch_errors(LESS_MEMORY)
def train(**options: Any) -> None:
    """Train the fusion head on one fold, or on all of them, of the features in a store.

    RUN then holds the best network, its settings, scores (metrics.json), history.csv, predictions and plots. A
    second call leaves finished runs alone. Exit codes: 0 all done, or left to another call that has it in hand; 1
    could not start, or a run failed while the others went on; 2 wrong usage; 130 and 143 stopped by SIGINT and
    SIGTERM.
    """
    with listening("runs") as stop:
        _train(options, stop)


def _train(options: dict[str, Any], stop: Stop) -> None:
    from .crossval import plan_runs, shard_of, still_to_do
    from .fold_options import manifest_of

    where = where_of(options["workers"], options["scheduler"], options["jobqueue"])
    config = _config(options)
    fold_words = ("annotations", "folds", "group", "groups", "manifest")
    corpus, manifest = manifest_of(**{name: options[name] for name in fold_words})
    numbers = [fold.number for fold in manifest.folds] if options["fold"] is None else [options["fold"]]
    seeds = range(config.seed, config.seed + options["seeds"])
    whole = plan_runs(options["out"], numbers, seeds, config)
    runs = shard_of(whole, *options["shard"])
    todo = still_to_do(runs, resume=options["resume"] or len(whole) > 1)
    _tell_plan(runs, todo)
    heard = _do_all(todo, corpus, manifest, config, where, stop, options)
    left = [*heard.failed, *still_to_do(heard.elsewhere, resume=True)]
    done = [planned for planned in runs if planned not in left]
    if done or heard.elsewhere or not heard.failed:
        _tell_results(done, config, options, several=len(whole) > 1)
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
        raise click.UsageError(f"{', '.join(twice)}: told twice, as an option and by --set")
    if "seed" in settings:
        raise click.UsageError("the seed is told by --seed")
    try:
        return with_settings(preset(options["preset"]), {**told, **settings, "seed": str(options["seed"])})
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _tell_plan(runs: Sequence[Planned], todo: Sequence[Planned]) -> None:
    from .crossval import stops_short

    short = [planned for planned in runs if planned not in todo and stops_short(planned)]
    if short:
        _say(f"note: {len(short)} finished with fewer epochs than asked for now; --resume goes on")
    _say(f"{counted(len(todo), 'run')} to do, {len(runs) - len(todo)} done before")


def _do_all(
    todo: Sequence[Planned],
    corpus: Corpus,
    manifest: Manifest,
    config: TrainConfig,
    where: Where,
    stop: Stop,
    options: dict[str, Any],
) -> Hearing:
    """Each run, here or on a cluster; one of several that fails does not hold up the others."""
    from .hearing import Hearing
    from .runs import do_runs

    work = _work(todo, corpus, manifest, config, options)
    heard = Hearing(len(todo), _say, _tell_features(work, where) if todo else ())
    if todo:
        do_runs(todo, work, where, options["retries"], stop, heard)
    return heard


def _work(
    todo: Sequence[Planned], corpus: Corpus, manifest: Manifest, config: TrainConfig, options: dict[str, Any]
) -> TrainWork:
    from .optional import usable
    from .runs import TrainWork
    from .watch import wants_tensorboard

    return TrainWork(
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
    )


def _tell_features(work: TrainWork, where: Where) -> list[str]:
    """What a user should know before anything is read, or is sent to a cluster; the lines that were said."""
    from ..features_store.status import untrained_features
    from ..features_store.store import FeatureStore
    from .experiment import check_experiment

    store = FeatureStore(work.store)
    lines = [line] if (line := untrained_line(untrained_features(store))) else []
    if not where.is_here:
        checked = check_experiment(store, work.corpus, work.manifest, work.folds, work.config, work.allow_other)
        lines += [f"note: {note}" for note in checked.notes]
    for line in lines:
        _say(line)
    return lines


def _tell_results(done: Sequence[Planned], config: TrainConfig, options: dict[str, Any], several: bool) -> None:
    from .crossval import sum_up, table_lines

    if several and (result := sum_up(options["out"], config, done)) is not None:
        click.echo("\n".join(table_lines(result)), err=options["as_json"])
    if options["as_json"]:
        click.echo(json.dumps(_results(done)))


def _results(runs: Sequence[Planned]) -> list[dict[str, Any]]:
    from .checkpoint import read_metrics

    return [
        {"fold": each.fold, "seed": each.config.seed, "run": str(each.folder), **read_metrics(each.folder)}
        for each in runs
    ]
