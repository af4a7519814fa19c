"""`avfuse report`: parse, call, print, exit code."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click

from ...batch.torch_errors import torch_errors
from ...shell.errors import clean_errors
from ...shell.options import (
    FOLDER,
    chosen_trials,
    config_option,
    device_option,
    store_option,
    store_or_default,
    trial_options,
    with_options,
)
from ...shell.progress import say
from ...shell.text import check_known, counted, in_words, untrained_line

EXIT_PROBLEMS = 3
_LESS_MEMORY = "give --device cpu, or fewer runs"
_some_trials = partial(with_options, options=trial_options("show"))


@click.command()
@store_option
@click.option("--videos", type=FOLDER, help="Folder of the videos, to be played beside the time line. [default: none]")
@click.option(
    "--run",
    "runs",
    type=FOLDER,
    multiple=True,
    help="Folder of a run, of several that are shown as one (folds, seeds), or of a comparison; repeatable. "
    "[default: none]",
)
@click.option(
    "--annotations",
    type=FOLDER,
    help="Folder of labels. [default: those the runs were trained on, else those the store remembers]",
)
@click.option("--out", type=FOLDER, default="report", show_default=True, help="Folder for the pages.")
@click.option(
    "--copy-videos",
    is_flag=True,
    help="Copy the videos into --out, so that it can be taken elsewhere. [default: link to them where they are]",
)
@click.option(
    "--no-crops",
    is_flag=True,
    help="Without faces; where the store has no crops, each video is decoded once for them. [default: with faces]",
)
@click.option(
    "--seen",
    is_flag=True,
    help="Also predictions of trials that a run has learned from. [default: held-out and unseen]",
)
@click.option(
    "--allow-other-features",
    is_flag=True,
    help="Go on although features come from other settings or weights than a run's. [default: refuse]",
)
@_some_trials
@device_option
@config_option
@clean_errors()
@torch_errors(_LESS_MEMORY)
def report(
    store: str | None,
    videos: Path | None,
    runs: tuple[Path, ...],
    annotations: Path | None,
    out: Path,
    copy_videos: bool,
    no_crops: bool,
    seen: bool,
    allow_other_features: bool,
    trials: str | None,
    trials_from: Path | None,
    device: str,
) -> None:
    """Write pages to look at what a store holds and what runs make of it: open OUT/index.html in a browser.

    A table of all trials to sort and search; one page per trial with its faces, gaps, loudness, labels and predictions
    along time, with the video if --videos names its folder; a page of runs. The pages need no server and no network.
    Exit code 3 if a trial cannot be read.
    """
    from ...features_store.interchange.result_files import made
    from ...features_store.records.provenance import read_inputs
    from ...features_store.store import FeatureStore
    from ...fusion.results.folder import earlier_files, result_folder
    from .truth import open_truth
    from .write import ReportRequest, write_report

    opened = FeatureStore(store_or_default(store))
    earlier = earlier_files(out, "report")
    if copy_videos and videos is None:
        raise click.UsageError("--copy-videos needs --videos")
    if videos is not None and not videos.is_dir():
        raise ValueError(f"{videos} is not a folder")
    everything = opened.trials()
    chosen = chosen_trials(trials, trials_from)
    check_known("trial", chosen or (), everything)
    systems, page = [], {}
    if runs:
        from .systems import open_systems, runs_page

        systems = open_systems(runs, opened, annotations, device, seen, allow_other_features)
        page = runs_page(systems, runs)
    truth = None if runs else open_truth(annotations, read_inputs(opened.files).annotations, opened)
    named = tuple(everything if chosen is None else chosen)
    request = ReportRequest(opened, out, named, videos, copy_videos, not no_crops, truth, systems, page)
    untrained = sorted({name for system in systems for name in system.untrained})
    if line := untrained_line(untrained):
        say(line)
    with result_folder(out, "report", made(store=opened.path, runs=list(map(str, runs)))) as folder:
        broken = write_report(request, folder, say)
    if earlier:
        say(f"note: the earlier report in {out} is replaced: {counted(len(earlier), 'file')}")
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    click.echo(f"{counted(len(named), 'trial')}, {in_words(size)}: {out / 'index.html'}")
    sys.exit(EXIT_PROBLEMS if broken else 0)
