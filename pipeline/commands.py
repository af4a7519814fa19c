"""`avfuse extract`: parse, call, print, exit code."""

from __future__ import annotations

import json
import os
import shlex
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from ..batch.options import target_of
from ..batch.protocols import WorkerUnfit
from ..batch.signals import StopRequest, listening
from ..batch.target import ExecutionTarget
from ..batch.torch_errors import torch_errors
from ..encoders.table import feature, module_of
from ..encoders.weights.resolve import WeightsMissing, WeightSource
from ..features_store.records.leaks import learned_from
from ..shell.errors import clean_errors
from ..shell.options import DEFAULT_STORE, GroupedCommand, chosen_trials
from ..shell.text import counted, escaped, flat, preview, untrained_line
from .config import LESS_MEMORY, ExtractConfig
from .media.types import MediaError
from .options import GROUPS, ExtractRequest, extract_options

if TYPE_CHECKING:
    from ..features_store.records.failures import FailureRecord
    from ..features_store.store import FeatureStore
    from .extraction.jobs import Failure
    from .runs.plan import Plan
    from .runs.summary import Summary


@click.command(cls=GroupedCommand, groups=GROUPS)
@extract_options
@clean_errors(MediaError, WeightsMissing, WorkerUnfit)
@torch_errors(LESS_MEMORY)
def extract(**options: Any) -> None:
    """Turn every video below a folder into features in a store: one row per video frame, with masks for missing data.

    Run it again to continue where it stopped: what was made with the same settings and weights is kept. Exit
    codes: 0 all done; 1 could not start or stopped; 2 wrong usage; 3 finished, but some videos failed; 130 and 143
    stopped by SIGINT and SIGTERM.
    """
    request = ExtractRequest(**options)
    with listening("videos") as stop:
        extracted = extract_videos(request, stop)
    if extracted is not None:
        _print_summary(extracted, request)
    sys.exit(3 if extracted is not None and extracted.summary.failed else 0)


@dataclass(frozen=True)
class Extracted:
    """What a call of `extract` came to: where the store is, what was planned, and what has become of it."""

    location: str
    plan: Plan
    summary: Summary


def extract_videos(request: ExtractRequest, stop: StopRequest) -> Extracted | None:
    """The command but for its report: what is planned is on stderr. None for a dry run, which prints its jobs.

    Raises what the command turns into an error: click.ClickException, OSError, ValueError, MediaError, WeightsMissing,
    WorkerUnfit, Terminated.
    """
    from ..encoders.weights.resolve import resolve, weight_names
    from ..features_store.disk.backends import open_files
    from ..features_store.schema import NODE_FILE
    from ..features_store.store import FeatureStore
    from .runs.discover import find_sources
    from .runs.plan import Selection, make_plan

    target = target_of(request.workers, request.scheduler, request.jobqueue)
    config = request.config()
    if config.text and request.words is None:
        raise click.UsageError(
            f"{', '.join(config.text)} needs --words DIR, a folder of words with times (`avfuse transcribe` makes it)"
        )
    sources = find_sources(request.videos, request.annotations, request.aligned, request.audio, request.words)
    if config.denoise is not None and config.audio:
        from .audio.denoise import check_denoise

        check_denoise()  # each worker does so too; here before there is a store
    # Beside the name that was typed, also where that is a link: there `train` looks.
    location = request.store or os.path.join(os.path.dirname(os.path.abspath(request.videos)), DEFAULT_STORE)
    trials = chosen_trials(request.trials, request.trials_from)
    selection = Selection(trials, request.shard, request.overwrite, request.retry_failed, request.limit)
    # A dry run needs no weights; a run without them first says what is wrong with its inputs.
    weights: dict[str, WeightSource] = {}
    lacking: WeightsMissing | None = None
    try:
        names = weight_names(config.features, config.vggish_output)
        weights = resolve(names, dict(request.weights), request.untrained)
    except WeightsMissing as error:
        lacking = error
    # A run that is refused makes no store.
    earlier = FeatureStore(location) if open_files(location).is_file(NODE_FILE) else None
    plan = make_plan(sources, config, earlier, selection, weights if lacking is None else None)
    if lacking is not None and not request.dry_run and any(feature(name).network for name in plan.features):
        raise lacking
    _print_plan(plan, request, location, earlier, weights, lacking)
    if request.dry_run:
        for failure in plan.failures:
            click.echo(flat(f"would fail: {failure.video}: {failure.reason}"), err=True)
        if request.as_json:
            click.echo(json.dumps({"todo": [job.trial for job in plan.jobs], "done": list(plan.done)}))
        else:
            for job in plan.jobs:
                click.echo(escaped(job.trial))
        return None
    store = earlier.writable() if earlier is not None else FeatureStore(location, mode="a")
    summary = _run(plan, request, store, config, weights, target, stop)
    return Extracted(location, plan, summary)


def _print_plan(
    plan: Plan,
    request: ExtractRequest,
    location: str,
    store: FeatureStore | None,
    weights: dict[str, WeightSource],
    lacking: WeightsMissing | None,
) -> None:
    """What a user should know before the run, on stderr.

    Raises click.ClickException if finished trials would be replaced, which nobody has asked for.
    """
    if lacking is not None and any(feature(name).network for name in plan.features):
        click.echo(f"note: the run itself needs weights: {lacking}", err=True)
    untrained = [name for name, source in weights.items() if source.is_untrained]
    if line := untrained_line(untrained):
        click.echo(line, err=True)
    for name, source in weights.items():
        if source.same_as:
            click.echo(f"note: {name} uses the weights of {source.same_as}: both features are equal.", err=True)
    for name in plan.features:
        used = weights.get(feature(name).network or "")
        known = learned_from(used.tuning, [job.trial for job in plan.jobs]) if used is not None else []
        if known:
            click.echo(
                f"note: the weights of {name} were tuned on {len(known)} of these trials ({preview(known)}): "
                "`evaluate` refuses to score heads on them",
                err=True,
            )
    for name in plan.features:
        if feature(name).load is not None and "non-commercial" in (licence := module_of(feature(name))[1].licence):
            click.echo(f"note: {name}: {licence}", err=True)
    for note in plan.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(
        f"{counted(len(plan.jobs), 'video')} to do, {len(plan.done)} done before, "
        f"{len(plan.failures) + len(plan.failed_before)} failed",
        err=True,
    )
    if added := [job for job in plan.jobs if job.adds]:
        names = preview(dict.fromkeys(name for job in added for name in job.features))
        click.echo(f"note: {names} for {counted(len(added), 'done trial')}; all else that they hold stays", err=True)
    if store is not None and request.annotations is None and plan.jobs:
        from ..features_store.records.provenance import read_inputs

        if annotations := read_inputs(store.files).annotations:
            click.echo(
                f"note: earlier runs over this store had --annotations {shlex.quote(annotations)}; without it new "
                "trials are named after their videos, and have one row per frame",
                err=True,
            )
    if plan.losing:
        from .runs.plan import losing_line

        raise click.ClickException(f"{location}: {losing_line(plan.losing)}")
    if plan.replaced:
        from .runs.plan import replacing_line

        line = replacing_line(plan.replaced)
        if not request.replace:
            raise click.ClickException(
                f"{location}: {line}. Use --replace to make them again, go back to the former settings, "
                "or name another --store"
            )
        click.echo(f"note: {line}", err=True)


def _run(
    plan: Plan,
    request: ExtractRequest,
    store: FeatureStore,
    config: ExtractConfig,
    weights: dict[str, WeightSource],
    target: ExecutionTarget,
    stop: StopRequest,
) -> Summary:
    """Do the plan, in a store rid of what dead runs have left. Raises Terminated when that was asked for."""
    from ..encoders.weights.resolve import files_given
    from ..features_store.records.provenance import inputs_of, record_inputs
    from .runs.summary import begin_summary

    store.sweep()
    store.repair_groups(plan.done)
    # The origin of it all, for `verify` and `train`; a store that cannot be written says so with its first trial.
    files = files_given(weights, {name for name, _ in request.weights})
    with suppress(OSError):
        record_inputs(store.files, inputs_of(request.videos, request.annotations, request.aligned, files))
    summary = begin_summary(plan, store)
    if plan.jobs:
        from .extraction.video import counting_stream
        from .runs.progress import make_reporter
        from .runs.work import ExtractTask, run_plan

        run = request.run_config()
        task = ExtractTask(
            store,
            replace(config, features=plan.features),
            run,
            weights,
            plan.overwrite,
            plan.failures_known,
            replace=request.replace,
        )
        reporter = make_reporter(request.verbose, counts=counting_stream(config.features))
        run_plan(plan, task, target, request.retries, stop, reporter, summary)
        stop.raise_if_set()
    return summary


def _print_summary(extracted: Extracted, request: ExtractRequest) -> None:
    """What the run came to: for programs on stdout, for people on stderr."""
    summary, location = extracted.summary, extracted.location
    if request.as_json:
        click.echo(json.dumps(summary.as_json()))
    failed: list[Failure | FailureRecord] = [*summary.failures, *summary.failed_before]
    for each in failed:
        click.echo(flat(f"failed: {each.video}: {each.stage}: {each.reason}"), err=True)
    if summary.failed_before:
        click.echo("videos that failed before were skipped; --retry-failed tries them again", err=True)
    if summary.elsewhere:
        left = counted(len(summary.elsewhere), "trial")
        click.echo(f"{left} left to another run, which is processing them or has done so", err=True)
    click.echo(
        f"{len(summary.receipts)} extracted, {summary.done_before} done before, {summary.failed} failed, "
        f"in {summary.seconds:.1f} s: {location}",
        err=True,
    )
