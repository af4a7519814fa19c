"""`avfuse evaluate` and `predict`: parse, call, print, exit code."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..batch.torch_errors import torch_errors
from ..features_store.errors import clean_errors
from ..features_store.options import FILE, FOLDER, STORE
from ..features_store.text import counted
from .config import LESS_MEMORY
from .options import result_options, run_config

if TYPE_CHECKING:
    from .report import Report

_SCREEN_LINES = 30


@click.command()
@result_options
@click.option("--store", type=STORE, help="Feature store. [default: the one the run was trained on]")
@click.option(
    "--annotations",
    type=FOLDER,
    help="Folder of labels. [default: those the run was trained on]",
)
@click.option(
    "--out",
    type=FOLDER,
    help="Folder for report.json, predictions and plots. [default: none]",
)
@clean_errors()
@torch_errors(LESS_MEMORY)
def evaluate(**options: Any) -> None:
    """Score runs on the trials that they have not learned from: CCC of valence and arousal, and trial by trial.

    Several runs: each trial's prediction is the mean over the runs that hold it out, so that the seeds of one fold
    make an ensemble, and the runs of all folds a score over all trials.
    """
    from .evaluate import evaluate_runs
    from .report import report_lines

    found = evaluate_runs(
        options["runs"],
        options["store"],
        options["annotations"],
        options["smooth"],
        run_config(options),
        options["allow_other_features"],
        lambda line: click.echo(line, err=True),
    )
    if options["out"] is not None:
        from .optional import usable
        from .pictures import draw_predictions
        from .prediction_files import write_prediction

        for name, rows in found.predictions.trials.items():
            write_prediction(options["out"] / "predictions", name, found.predictions.columns, rows)
        if usable("matplotlib.backends.backend_agg", "pictures"):
            draw_predictions(
                options["out"] / "plots",
                found.store,
                found.sources,
                found.predictions.trials,
                found.predictions.columns,
                found.report,
            )
        _write_report(options["out"], found.report)
    if options["as_json"]:
        click.echo(json.dumps(_as_json(found.report)))
    else:
        click.echo("\n".join(report_lines(found.report, _SCREEN_LINES)))


def _write_report(folder: Path, report: Report) -> None:
    from ..features_store.disk import replace_file

    replace_file(folder / "report.json", (json.dumps(_as_json(report), indent=1) + "\n").encode())


def _as_json(report: Report) -> dict[str, Any]:
    return {**report.as_json(), "by_trial": [asdict(trial) for trial in report.trials]}


@click.command()
@result_options
@click.option("--store", type=STORE, required=True, help="Feature store of the trials to predict.")
@click.option(
    "--out",
    type=FOLDER,
    help="Folder for one file a trial (valence,arousal; a row a frame). [default: none]",
)
@click.option(
    "--submission",
    type=FILE,
    help="Challenge file to write, in the rows and order of --sample. [default: none]",
)
@click.option(
    "--sample",
    type=FILE,
    help="The organiser's sample submission. [default: none]",
)
@click.option(
    "--allow-length-difference",
    is_flag=True,
    help="Trim or pad trials by more than 2 rows to the sample's length. [default: refuse]",
)
@clean_errors()
@torch_errors(LESS_MEMORY)
def predict(**options: Any) -> None:
    """Predict every trial of a store with a run, or with the mean of several; write files or a submission."""
    from .evaluate import predict_store
    from .prediction_files import write_prediction
    from .submission import write_submission

    out, submission, sample = options["out"], options["submission"], options["sample"]
    if (submission is None) != (sample is None):
        raise click.UsageError("--submission and --sample go together")
    if out is None and submission is None:
        raise click.UsageError("name --out, or --submission and --sample")
    predictions = predict_store(
        options["runs"],
        options["store"],
        options["smooth"],
        run_config(options),
        options["allow_other_features"],
        lambda line: click.echo(line, err=True),
    )
    told: dict[str, Any] = {"trials": len(predictions.trials), "columns": list(predictions.columns)}
    if out is not None:
        for name, rows in predictions.trials.items():
            write_prediction(out, name, predictions.columns, rows)
        click.echo(f"{counted(len(predictions.trials), 'trial')} to {out}", err=True)
    if submission is not None:
        if len(predictions.columns) != 2:
            raise click.ClickException(
                f"a submission needs valence and arousal, the runs predict {predictions.columns[0]}"
            )
        done = write_submission(submission, sample, predictions.trials, options["allow_length_difference"])
        click.echo("\n".join([*done.lines(), f"submission to {submission}"]), err=True)
        told |= {"rows": done.rows, "padded": dict(done.padded), "trimmed": dict(done.trimmed)}
    if options["as_json"]:
        click.echo(json.dumps(told))
