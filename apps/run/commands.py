"""`avfuse run`: videos in; a table, a plot and, if wanted, a drawn video of each out.

    OUT/<trial>.csv   time_s,valence,arousal,valid, or the columns of another task: a row a decoded frame
    OUT/<trial>.png   the same over time
    OUT/<trial>.mp4   --draw
    OUT/summary.json  what is printed, for programs
    OUT/features.zarr the store, so that a second call extracts nothing

Tested by tests/apps/run/test_run.py.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...batch.protocols import WorkerUnfit
from ...batch.signals import StopRequest, listening
from ...batch.torch_errors import torch_errors
from ...encoders.weights.resolve import WeightsMissing
from ...pipeline.commands import extract, extract_videos
from ...pipeline.config import LESS_MEMORY
from ...pipeline.media.types import MediaError
from ...pipeline.options import ExtractRequest, batch_size_option, limit_option, stall_timeout_option, videos_option
from ...shell.errors import clean_errors
from ...shell.options import (
    DEFAULT_STORE,
    FOLDER,
    GroupedCommand,
    config_option,
    device_option,
    encoder_option,
    smooth_option,
    untrained_option,
    weights_option,
    with_options,
)
from ...shell.progress import say
from ...shell.text import escaped, flat

if TYPE_CHECKING:
    from ...fusion.inference.evaluate import Results
    from .needs import Need
    from .results import VideoResult


# Headings of `avfuse run --help`. Tested by tests/test_cli.py: every option is under one of them.
GROUPS = {
    "Input and output": ("videos", "model", "out", "draw", "plots"),
    "Beside the videos": ("aligned", "audio", "words"),
    "Weights and networks": ("weights", "untrained", "encoder", "device", "batch-size"),
    "Predictions": ("smooth", "allow-other-features"),
    "Which videos": ("limit", "replace", "retry-failed"),
    "How to run": ("workers", "stall-timeout"),
    "Settings file and output": ("config", "json", "verbose", "help"),
}
_OPTIONS = (
    videos_option,
    click.option(
        "--model",
        "models",
        type=FOLDER,
        multiple=True,
        required=True,
        help="Folder of a run of `avfuse train`, or of several; repeatable: their predictions are averaged.",
    ),
    click.option("--out", type=FOLDER, required=True, help="Folder for the results and for the store of features."),
    click.option(
        "--draw", is_flag=True, help="Write each video with its face box and the moving traces. [default: off]"
    ),
    click.option("--plots/--no-plots", default=True, show_default=True, help="Draw each prediction over time as PNG."),
    click.option("--aligned", type=FOLDER, help="Crops instead of face detection, as for `extract`. [default: detect]"),
    click.option("--audio", type=FOLDER, help="Sound files, as for `extract`. [default: the videos' own sound]"),
    click.option("--words", type=FOLDER, help="Words with times, as for `extract`. [default: none]"),
    weights_option("Weights of a feature (repeatable), those that the run has learned from."),
    untrained_option("tests and demos only. [default: only where the run has learned from such]"),
    encoder_option,
    device_option,
    batch_size_option,
    smooth_option,
    click.option(
        "--allow-other-features",
        is_flag=True,
        help="Go on although the run has learned from features of other settings or weights. [default: refuse]",
    ),
    limit_option,
    click.option(
        "--replace",
        is_flag=True,
        help="Extract again what the store in --out holds with other settings or weights. [default: refuse]",
    ),
    click.option("--retry-failed", is_flag=True, help="Try again the videos that failed before. [default: off]"),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        metavar="N",
        help="Processes that extract, one per GPU; 1 is this process itself.",
    ),
    stall_timeout_option,
    click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON. [default: off]"),
    click.option("--verbose", is_flag=True, help="Print a line for every video. [default: off]"),
    config_option,
)


@dataclass(frozen=True)
class PredictVideosRequest:
    """What `avfuse run` is asked to do: its options by their names."""

    videos: Path
    models: tuple[Path, ...]
    out: Path
    draw: bool
    plots: bool
    aligned: Path | None
    audio: Path | None
    words: Path | None
    weights: tuple[tuple[str, Path], ...]
    untrained: int | None
    encoder: tuple[tuple[str, Path], ...]
    device: str
    batch_size: int
    smooth: str
    allow_other_features: bool
    limit: int | None
    replace: bool
    retry_failed: bool
    workers: int
    stall_timeout: float
    as_json: bool
    verbose: bool

    def extract_words(self) -> list[str]:
        """The options of `extract` that are the same for whatever a run needs."""
        words = ["--videos", str(self.videos), "--store", str(self.out / DEFAULT_STORE), "--device", self.device]
        words += ["--batch-size", str(self.batch_size), "--workers", str(self.workers)]
        words += ["--stall-timeout", f"{self.stall_timeout:g}"]
        for name, folder in (("aligned", self.aligned), ("audio", self.audio), ("words", self.words)):
            words += [] if folder is None else [f"--{name}", str(folder)]
        words += [word for name, file in self.encoder for word in ("--encoder", f"{name}={file}")]
        words += [word for name, file in self.weights for word in ("--weights", f"{name}={file}")]
        words += [] if self.limit is None else ["--limit", str(self.limit)]
        flags = (("replace", self.replace), ("retry-failed", self.retry_failed), ("verbose", self.verbose))
        return [*words, *(f"--{name}" for name, wanted in flags if wanted)]


@dataclass
class Made:
    """What extraction came to: where the video of each trial lies, and what has failed, {video: reason}.

    A video that has failed has no trial: what the store may still hold of it is of an earlier file. `named`: those of
    which extraction has printed a line.
    """

    videos: dict[str, Path] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)
    failed_before: bool = False


@click.command(cls=GroupedCommand, groups=GROUPS)
@partial(with_options, options=_OPTIONS)
@clean_errors(MediaError, WeightsMissing, WorkerUnfit)
@torch_errors(LESS_MEMORY)
def run(**options: Any) -> None:
    """Predict every video below a folder with a trained run: a CSV and a plot a video, and a table of all.

    The features that the run has learned from are extracted into a store in OUT, with the run's own settings; weights
    are found as by `extract` and must be the run's. A second call extracts nothing. Exit codes: 0 all done; 1 could not
    start or stopped; 2 wrong usage; 3 finished, but some videos failed.
    """
    request = PredictVideosRequest(**options)
    with listening("videos") as stop:
        sys.exit(_run(request, stop))


def _run(request: PredictVideosRequest, stop: StopRequest) -> int:
    """The command, and its exit code."""
    import torch

    from ...fusion.inference.ensemble import find_runs, open_run
    from ...fusion.results.folder import earlier_files
    from ...fusion.results.smoothing import parse_smoothing
    from ...fusion.tasks.table import TASKS, joint_task
    from .needs import needs_of
    from .results import write_results

    folders = find_runs(request.models)
    # What is wrong with runs and options is said before hours of work.
    opened = [(folder, open_run(folder, torch.device("cpu")).described) for folder in folders]
    joint_task(TASKS[described.config.task] for _, described in opened)
    needs = needs_of(opened)
    parse_smoothing(request.smooth)
    earlier_files(request.out, "run")
    made = _extract(request, needs, stop)
    stop.left = list(made.videos)
    found = _predict(request, folders, made)
    done: Sequence[VideoResult] = ()
    if found is not None:
        done, failed = write_results(found, made.videos, made.failed, request, stop)
        made.failed |= failed
    for video, reason in made.failed.items():
        if video not in made.named:
            say(flat(f"failed: {video}: {reason}"))
    if made.failed_before:
        say("videos that failed before were skipped; --retry-failed tries them again")
    if request.as_json:
        videos = [each.as_json() for each in done]
        click.echo(json.dumps({"videos": videos, "failed": made.failed, "made": found.made if found else {}}))
    elif found is not None and done:
        from .results import table_lines

        click.echo("\n".join(table_lines(done, found.predictions.task)))
    say(escaped(f"{len(done)} predicted, {len(made.failed)} failed: {request.out}"))
    return 3 if made.failed else 0


def _extract(request: PredictVideosRequest, needs: Sequence[Need], stop: StopRequest) -> Made:
    """What the runs need of the videos into the store, with the settings and weights that they have learned from.

    Raises ValueError, before anything is decoded, where these are not the ones that there are.
    """
    from ...pipeline.runs.discover import find_jobs, find_sources
    from .needs import check_alike, passes, weights_for

    calls = []
    for names, words in passes(needs, request.untrained):
        asked = [*request.extract_words(), *words]
        extracting = ExtractRequest(**extract.make_context("extract", list(asked)).params)
        config = extracting.config()
        weights = weights_for(needs, names, config, dict(request.weights), request.untrained)
        if not request.allow_other_features:
            check_alike(needs, names, config, weights)
        if extracting.untrained is not None:  # a seed is for all that have no file: those that have one are named
            given = {name: source.path for name, source in weights.items() if source.path is not None}
            asked += [word for name, path in given.items() for word in ("--weights", f"{name}={path}")]
        calls.append(asked)
    made = Made()
    for asked in calls:
        say(escaped(f"$ avfuse extract {shlex.join(asked)}"))
        extracting = ExtractRequest(**extract.make_context("extract", list(asked)).params)
        extracted = extract_videos(extracting, stop)
        if extracted is None:
            continue
        failures, failed_before = extracted.summary.failures, extracted.summary.failed_before
        made.failed_before |= any(each.video not in made.failed for each in failed_before)
        made.failed |= {each.video: f"{each.stage}: {each.reason}" for each in failed_before}
        made.failed |= {each.video: f"{each.stage}: {each.reason}" for each in failures}
        made.named |= {each.video for each in failures if each not in extracted.plan.failures}
        sources = find_sources(request.videos, None, extracting.aligned, extracting.audio, extracting.words)
        jobs, _, _ = find_jobs(sources, extracting.config())
        made.videos |= {job.trial: job.video for job in jobs}
    made.videos = {
        trial: video
        for trial, video in made.videos.items()
        if video.relative_to(request.videos).as_posix() not in made.failed
    }
    return made


def _predict(request: PredictVideosRequest, folders: Sequence[Path], made: Made) -> Results | None:
    """The predictions of the videos' trials; None where nothing could be extracted of any."""
    from ...features_store.store import FeatureStore
    from ...fusion.inference.evaluate import predict_store
    from ...fusion.requests import PredictRequest
    from .results import video_name

    store = FeatureStore(request.out / DEFAULT_STORE)
    trials = tuple(name for name in store.trials() if video_name(name, made.videos) in made.videos)
    if not trials:
        return None
    wanted = PredictRequest(
        store=os.fspath(request.out / DEFAULT_STORE),
        out=request.out,
        device=request.device,
        precision="fp32",
        memory_gb=None,
        allow_other_features=request.allow_other_features,
        allow_length_difference=False,
        as_json=request.as_json,
        runs=tuple(folders),
        smooth=request.smooth,
        trials=trials,
    )
    return predict_store(wanted, say)
