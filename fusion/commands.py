"""`avfuse train`: parse, call, print, exit code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..features_store.errors import clean_errors
from .options import run_config, train_options

if TYPE_CHECKING:
    from ..features_store.store import FeatureStore
    from .config import TrainConfig
    from .crossval import Planned
    from .experiment import Experiment
    from .train import Outcome


@click.command()
@train_options
@clean_errors()
def train(**options: Any) -> None:
    """Train the fusion head on one fold, or on all of them, of the features in a store.

    RUN then holds the best network, its settings, scores (metrics.json), history.csv, predictions and plots. A
    second call leaves finished runs alone. Exit codes: 0 all done; 1 could not start, stopped, or a run failed
    while the others went on; 2 wrong usage.
    """
    from ..features_store.status import untrained_line
    from ..features_store.store import FeatureStore
    from .crossval import plan_runs, still_to_do, stops_short
    from .experiment import open_experiment
    from .fold_options import manifest_of
    from .progress import shown

    config, run = _config(options), run_config(options)
    fold_words = ("annotations", "folds", "group", "groups", "manifest")
    corpus, manifest = manifest_of(**{name: options[name] for name in fold_words})
    numbers = [fold.number for fold in manifest.folds] if options["fold"] is None else [options["fold"]]
    seeds = range(config.seed, config.seed + options["seeds"])
    runs = plan_runs(options["out"], numbers, seeds, config)
    todo = still_to_do(runs, resume=options["resume"] or len(runs) > 1)
    done_before = len(runs) - len(todo)
    short = [planned for planned in runs if planned not in todo and stops_short(planned)]
    if short:
        click.echo(f"note: {len(short)} finished with fewer epochs than asked for now; --resume goes on", err=True)
    click.echo(f"{len(todo)} {'run' if len(todo) == 1 else 'runs'} to do, {done_before} done before", err=True)
    failed: dict[Planned, str] = {}
    if todo:
        store = FeatureStore(options["store"])
        if line := untrained_line(store):
            click.echo(line, err=True)
        folds = sorted({planned.fold for planned in todo})
        allowed = options["allow_other_features"]
        experiment = open_experiment(store, corpus, manifest, folds, config, run, allowed, shown)
        _tell_experiment(experiment)
        failed = _do_all(todo, experiment, store, options)
    if done := [planned for planned in runs if planned not in failed]:
        _tell_results(done, options, several=len(runs) > 1)
    if failed:
        told = "; ".join(f"{planned.folder}: {why}" for planned, why in failed.items())
        raise click.ClickException(f"{len(failed)} of {len(runs)} runs failed: {told}" if len(runs) > 1 else told)


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


def _do_all(
    todo: Sequence[Planned], experiment: Experiment, store: FeatureStore, options: dict[str, Any]
) -> dict[Planned, str]:
    """Each run in its turn; one of several that fails does not hold up the others. Returns {run: why it failed}."""
    from ..features_store.errors import one_line

    failed: dict[Planned, str] = {}
    for planned in todo:
        try:
            _do(planned, experiment, store, options)
        except ValueError as error:
            failed[planned] = one_line(error)
            if len(todo) > 1:
                click.echo(f"{planned.folder} failed: {failed[planned]}", err=True)
    return failed


def _do(planned: Planned, experiment: Experiment, store: FeatureStore, options: dict[str, Any]) -> None:
    """One run with its bar, pictures and summary."""
    from .crossval import begin_run, do_run
    from .watch import make_watcher, wants_tensorboard

    name, run = f"fold {planned.fold} seed {planned.config.seed}", run_config(options)
    described = begin_run(planned, experiment, run, options["allow_other_features"])
    tensorboard = wants_tensorboard(options["tensorboard"])
    watcher = make_watcher(name, planned.config.max_epochs, planned.folder, tensorboard)
    try:
        outcome = do_run(
            described,
            planned.folder,
            experiment,
            run,
            watcher,
            lambda outcome: _keep(planned, experiment, store, outcome, options["plots"]),
        )
    except KeyboardInterrupt:
        told = f"interrupted; --resume goes on from the last epoch that is saved in {planned.folder}"
        raise click.ClickException(told) from None
    finally:
        watcher.close()
    _tell_outcome(name, planned, outcome)


def _keep(planned: Planned, experiment: Experiment, store: FeatureStore, outcome: Outcome, plots: bool) -> None:
    """Predictions of the validation trials, and pictures."""
    from .pictures import draw_history, draw_predictions
    from .prediction_files import write_prediction

    outputs = planned.config.outputs
    for name, rows in outcome.predictions.items():
        write_prediction(planned.folder / "predictions", name, outputs, rows)
    if plots:
        sources = [experiment.data.sources[name] for name in outcome.predictions]
        draw_history(planned.folder, outcome.history)
        draw_predictions(planned.folder / "plots", store, sources, outcome.predictions, outputs, outcome.report)


def _tell_experiment(experiment: Experiment) -> None:
    for note in experiment.notes:
        click.echo(f"note: {note}", err=True)
    data = experiment.data
    where = "streamed from the store" if data.place == "store" else f"on {data.place}"
    widths = ", ".join(f"{name} {width}" for name, width in zip(data.modalities, data.widths, strict=True))
    click.echo(f"{len(data.sources)} trials, {len(data.labels) - 1} rows of {widths}, {where}", err=True)


def _tell_outcome(name: str, planned: Planned, outcome: Outcome) -> None:
    from .report import report_lines
    from .train import best_row

    epochs = len(outcome.history)
    best = best_row(outcome.history)["epoch"]
    click.echo(f"{name}: best epoch {best} of {epochs} ({outcome.reason}): {planned.folder}", err=True)
    for line in report_lines(outcome.report, 0):
        click.echo(f"  {line}", err=True)


def _tell_results(done: Sequence[Planned], options: dict[str, Any], several: bool) -> None:
    from .crossval import sum_up, table_lines

    if several:
        result = sum_up(options["out"], done)
        click.echo("\n".join(table_lines(result)), err=options["as_json"])
    if options["as_json"]:
        click.echo(json.dumps(_results(done)))


def _results(runs: Sequence[Planned]) -> list[dict[str, Any]]:
    from .checkpoint import read_metrics

    return [
        {"fold": each.fold, "seed": each.config.seed, "run": str(each.folder), **read_metrics(each.folder)}
        for each in runs
    ]
