"""`avfuse evaluate`, `predict` and `pseudo-label`: parse, call, print, exit code."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import click

from ...batch.torch_errors import torch_errors
from ...shell.errors import clean_errors
from ...shell.options import FILE, FOLDER, STORE, Number, store_option, store_or_default
from ...shell.progress import say
from ...shell.text import counted, escaped
from ..config import LESS_MEMORY
from ..options import RUNS, figures_option, length_option, result_options
from ..requests import EvaluateRequest, PredictRequest

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
@click.option(
    "--allow-leak",
    is_flag=True,
    help="Score also trials that the weights behind their features were tuned on. [default: refuse]",
)
@figures_option
@length_option
@clean_errors()
@torch_errors(LESS_MEMORY)
def evaluate(runs: tuple[Path, ...], **given: Any) -> None:
    """Score runs on the trials that they have not learned from: CCC or, of classes and units, F1; overall and by trial.

    Several runs: each trial's prediction is the mean over the runs that hold it out. The seeds of one fold make an
    ensemble, and the runs of all folds a score over all trials.
    """
    from ..results.folder import earlier_files, result_folder
    from ..results.report import report_lines
    from .evaluate import evaluate_runs

    request = EvaluateRequest(runs=_runs_or_latest(runs), **given)
    out = request.out
    earlier = earlier_files(out, "evaluate") if out is not None else []
    found = evaluate_runs(request, say)
    content = {**found.report.as_json(), "by_trial": found.report.by_trial(), "made": dict(found.made)}
    if out is not None:
        from ...features_store.disk.atomic import write_json
        from ..results.plots import draw_predictions
        from ..runs.loggers import usable

        predictions = found.predictions
        with result_folder(out, "evaluate", found.made) as folder:
            found.write(folder / "predictions")
            if usable("matplotlib.backends.backend_agg", "pictures"):
                draw_predictions(
                    folder / "plots",
                    found.store,
                    list(found.sources.values()),
                    predictions.trials,
                    found.report,
                    found.made,
                    request.figures,
                )
            write_json(folder / "report.json", content)
        if earlier:
            say(f"note: the earlier results in {out} are replaced: {counted(len(earlier), 'file')}")
    click.echo(json.dumps(content) if request.as_json else "\n".join(report_lines(found.report, _SCREEN_LINES)))


@click.command()
@result_options
@store_option
@click.option(
    "--out",
    type=FOLDER,
    help="Folder for one file per trial (time_s,valence,arousal,valid, or what else was learned; one row per frame). "
    "[default: none]",
)
@click.option(
    "--submission",
    type=FILE,
    help="Challenge file to write, in the rows and order of --sample. [default: none]",
)
@click.option(
    "--sample",
    type=FILE,
    help="The organisers' sample submission. [default: none]",
)
@click.option(
    "--allow-length-difference",
    is_flag=True,
    help="Trim or pad trials by more than 2 rows to the sample's length. [default: refuse]",
)
@clean_errors()
@torch_errors(LESS_MEMORY)
def predict(
    runs: tuple[Path, ...],
    store: str | None,
    out: Path | None,
    submission: Path | None,
    sample: Path | None,
    allow_length_difference: bool,
    **given: Any,
) -> None:
    """Predict every trial of a store with a run, or with the mean of several; write files or a submission."""
    from ..results.folder import earlier_files, result_folder
    from ..results.submission import check_out, write_submission
    from .evaluate import predict_store

    if (submission is None) != (sample is None):
        raise click.UsageError("--submission and --sample go together")
    if out is None and submission is None:
        raise click.UsageError("name --out, or --submission and --sample")
    request = PredictRequest(
        runs=_runs_or_latest(runs),
        store=store_or_default(store),
        out=out,
        submission=submission,
        sample=sample,
        allow_length_difference=allow_length_difference,
        **given,
    )
    earlier = earlier_files(out, "predict") if out is not None else []
    if submission is not None and sample is not None:
        check_out(submission, sample)
    found = predict_store(request, say)
    predictions = found.predictions
    summary: dict[str, Any] = {"trials": len(predictions.trials), "columns": list(predictions.task.columns)}
    if out is not None:
        with result_folder(out, "predict", found.made) as folder:
            found.write(folder)
        if earlier:
            say(f"note: the earlier results in {out} are replaced: {counted(len(earlier), 'file')}")
        say(f"{counted(len(predictions.trials), 'trial')} to {out}")
    if submission is not None and sample is not None:
        made = {**found.made, "sample": os.path.abspath(sample)}
        trials, task = predictions.trials, predictions.task
        done = write_submission(submission, sample, trials, allow_length_difference, made, task)
        say("\n".join([*done.lines(), f"submission to {submission}"]))
        summary |= {"rows": done.rows, "padded": dict(done.padded), "trimmed": dict(done.trimmed)}
    if request.as_json:
        click.echo(json.dumps(summary))


@click.command("pseudo-label")
@result_options
@store_option
@click.option(
    "--agreement",
    type=Number(min=0, min_open=True),
    required=True,
    metavar="X",
    help="Label a row where the runs' predictions lie within X of each other: the largest less the smallest.",
)
@click.option("--out", type=FOLDER, required=True, help="Folder for the labels, in Aff-Wild2's layout.")
@click.option(
    "--seen",
    is_flag=True,
    help="Also trials whose labels the runs have seen, to train or to validate. [default: only unseen trials]",
)
@clean_errors()
@torch_errors(LESS_MEMORY)
def pseudo_label(
    runs: tuple[Path, ...], store: str | None, agreement: float, out: Path, seen: bool, **given: Any
) -> None:
    """Label the trials of a store by runs that agree: the mean of their predictions, -5 where they do not.

    `train --extra-annotations` trains on such labels, and never validates on them. Rows without a feature that was
    computed from real media get none.
    """
    from ..results.folder import earlier_files, result_folder
    from .evaluate import predict_store
    from .pseudo_label import pseudo_labels

    request = PredictRequest(
        runs=_runs_or_latest(runs),
        store=store_or_default(store),
        out=out,
        without_seen=not seen,
        allow_length_difference=False,
        **given,
    )
    earlier = earlier_files(out, "pseudo-label")
    found = predict_store(request, say)
    labels = pseudo_labels(found.predictions, agreement)
    about = {**found.made, "pseudo": True, "agreement": agreement, "rows": labels.rows, "labelled": labels.labelled}
    with result_folder(out, "pseudo-label", about) as folder:
        labels.write(folder)
    if earlier:
        say(f"note: the earlier results in {out} are replaced: {counted(len(earlier), 'file')}")
    say("\n".join([*labels.lines(), f"pseudo-labels to {out}"]))
    if request.as_json:
        click.echo(json.dumps({"trials": len(labels.trials), "rows": labels.rows, "labelled": labels.labelled}))


def _runs_or_latest(runs: tuple[Path, ...]) -> tuple[Path, ...]:
    """The runs that are given, else the latest one, which a line on stderr names. Raises ValueError without any."""
    if runs:
        return runs
    from ..runs.crossval import latest_run

    latest = latest_run(Path(RUNS))
    say(escaped(f"note: --run {shlex.quote(str(latest))}"))
    return (latest,)
