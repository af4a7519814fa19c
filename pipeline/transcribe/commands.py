"""`avfuse transcribe`: parse, call, print, exit code."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import click

from ...batch.options import batch_options, target_of
from ...batch.protocols import WorkerUnfit
from ...batch.signals import StopRequest, listening
from ...shell.errors import clean_errors
from ...shell.options import (
    FOLDER,
    GroupedCommand,
    chosen_trials,
    config_option,
    device_option,
    trial_options,
    with_options,
)
from ...shell.text import check_known, counted, escaped, flat
from ..config import ExtractConfig, RecogniserPrecision, RecogniserSettings
from ..media.types import MediaError
from ..options import audio_stream_option, limit_option, run_output_options, stall_timeout_option, videos_option

WHISPER = "whisper"


@dataclass(frozen=True)
class TranscribeRequest:
    """What `avfuse transcribe` is asked to do: its options by their names."""

    videos: Path
    out: Path
    audio_stream: int | None
    weights: Path | None
    language: str | None
    beam: int
    device: str
    precision: RecogniserPrecision
    trials: str | None
    trials_from: Path | None
    limit: int | None
    overwrite: bool
    dry_run: bool
    workers: int
    scheduler: str | None
    jobqueue: tuple[str, ...]
    shard: tuple[int, int]
    retries: int
    stall_timeout: float
    as_json: bool
    verbose: bool


GROUPS = {
    "Input and output": ("videos", "out", "audio-stream"),
    "Speech to words": ("weights", "language", "beam", "device", "precision"),
    "Which videos": ("trials", "trials-from", "limit", "overwrite", "dry-run"),
    "Where and how": ("workers", "scheduler", "jobqueue", "shard", "retries", "stall-timeout"),
    "Settings file and messages": ("config", "json", "verbose", "help"),
}
_OPTIONS = (
    videos_option,
    click.option("--out", type=FOLDER, required=True, help="Folder for the words: TRIAL.csv."),
    audio_stream_option,
    click.option(
        "--weights",
        type=FOLDER,
        help="Folder of a Whisper for faster-whisper: model.bin, config.json, tokenizer.json … [default: "
        f"$AVFUSE_WEIGHTS/{WHISPER}, then {WHISPER} in the cache]",
    ),
    click.option("--language", metavar="NAME", help="Language that is spoken, as a code: en, de … [default: detected]"),
    click.option(
        "--beam",
        type=click.IntRange(min=1),
        metavar="N",
        default=RecogniserSettings.beam,
        show_default=True,
        help="Readings that are followed at once.",
    ),
    device_option,
    click.option(
        "--precision",
        type=click.Choice(get_args(RecogniserPrecision)),
        default="auto",
        show_default=True,
        help="Number format of the network; auto: fp16 on a GPU, else fp32.",
    ),
    *batch_options("videos"),
    stall_timeout_option,
    *trial_options("transcribe"),
    limit_option,
    click.option("--overwrite", is_flag=True, help="Transcribe everything again, also what is done. [default: off]"),
    *run_output_options,
    config_option,
)
transcribe_options = partial(with_options, options=_OPTIONS)


@click.command(cls=GroupedCommand, groups=GROUPS)
@transcribe_options
@clean_errors(MediaError, WorkerUnfit)
def transcribe(**options: Any) -> None:
    """Turn the speech of every video below a folder into words with times: one CSV file per video, for `--words`.

    Columns: word, start_s and end_s in s on the video's clock, confidence in [0, 1]. Needs avfuse[asr] and a folder
    with a Whisper; nothing is downloaded. Run it again to continue where it stopped. Exit codes: 0 all done; 1 could
    not start or stopped; 2 wrong usage; 3 finished, but some videos failed; 130 and 143 stopped by SIGINT and SIGTERM.
    """
    request = TranscribeRequest(**options)
    with listening("videos") as stop:
        sys.exit(_transcribe(request, stop))


def _transcribe(request: TranscribeRequest, stop: StopRequest) -> int:
    """The command, and its exit code."""
    from ...features_store.disk.unwritable import naming_place
    from ...features_store.interchange.result_files import check_place
    from ..runs.discover import find_jobs, find_sources
    from ..runs.plan import shard_of
    from ..runs.progress import make_reporter
    from .recogniser import check_whisper_folder
    from .work import TranscribeSummary, TranscribeTask, file_of, transcribe_all

    target = target_of(request.workers, request.scheduler, request.jobqueue)
    # Names as those of `extract`: one trial per video, whoever is to be seen in it.
    jobs, failures, notes = find_jobs(find_sources(request.videos, None, None), ExtractConfig(features=("mfcc",)))
    if (chosen := chosen_trials(request.trials, request.trials_from)) is not None:
        check_known("trial", chosen, [*(job.trial for job in jobs), *(failure.trial for failure in failures)])
        jobs = [job for job in jobs if job.trial in chosen]
        failures = [failure for failure in failures if failure.trial in chosen]
    mine = shard_of(jobs, *request.shard)
    todo = [job for job in mine if request.overwrite or not file_of(request.out, job.trial).is_file()]
    summary = TranscribeSummary(len(mine) - len(todo), failures=list(failures) if request.shard[0] == 0 else [])
    todo = todo[: request.limit]
    for note in notes:
        click.echo(f"note: {note}", err=True)
    counts = f"{counted(len(todo), 'video')} to do, {summary.done_before} done before"
    click.echo(f"{counts}, {len(summary.failures)} failed", err=True)
    if request.dry_run:
        names = [job.trial for job in todo]
        click.echo(json.dumps({"todo": names}) if request.as_json else "\n".join(map(escaped, names)))
        return 0
    if todo:
        folder = request.weights or _whisper_folder()
        check_whisper_folder(folder)
        settings = RecogniserSettings(folder, request.language, request.device, request.precision, request.beam)
        with naming_place(request.out):
            check_place(request.out)
            request.out.mkdir(parents=True, exist_ok=True)
            task = TranscribeTask(request.out, settings, request.audio_stream, request.stall_timeout)
            reporter = make_reporter(request.verbose, counts="sound", noun="word")
            transcribe_all(todo, task, target, request.retries, stop, reporter, summary)
        stop.raise_if_set()
    if request.as_json:
        click.echo(json.dumps(summary.as_json()))
    for failure in summary.failures:
        click.echo(flat(f"failed: {failure.video}: {failure.stage}: {failure.reason}"), err=True)
    done = f"{len(summary.receipts)} transcribed, {summary.done_before} done before, {len(summary.failures)} failed"
    click.echo(f"{done}, in {summary.seconds:.1f} s: {request.out}", err=True)
    return 3 if summary.failures else 0


def _whisper_folder() -> Path:
    """The folder of the model where --weights names none. Raises ValueError with the ways to get one."""
    from ...encoders.weights.resolve import weight_folders

    places = [folder / WHISPER for folder in weight_folders()]
    for place in places:
        if place.is_dir():
            return place
    looked = ", ".join(os.fspath(place) for place in places)
    raise ValueError(
        f"there is no Whisper here (looked for {looked or 'nothing'}): give its folder by --weights DIR. Any that "
        "faster-whisper reads will do, such as Systran/faster-whisper-small (MIT), downloaded once"
    )
