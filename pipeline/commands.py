"""The pipeline's commands: parse, call, print, exit code."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from ..batch.protocols import WorkerUnfit
from ..batch.signals import StopRequest, listening
from ..batch.target import ExecutionTarget, target_of
from ..batch.torch_errors import torch_errors
from ..encoders.weights.resolve import WeightsMissing, WeightSource
from ..shell.errors import clean_errors
from ..shell.options import GroupedCommand, chosen_trials
from ..shell.text import counted, escaped, flat, untrained_line
from .config import LESS_MEMORY, ExtractConfig, RunConfig
from .media.types import MediaError
from .options import GROUPS, extract_options

if TYPE_CHECKING:
    from ..features_store.store import FeatureStore
    from .runs.plan import Plan
    from .runs.summary import Summary


@click.command(cls=GroupedCommand, groups=GROUPS)
@extract_options
@clean_errors(MediaError, WeightsMissing, WorkerUnfit)
@torch_errors(LESS_MEMORY)
def extract(**options: Any) -> None:
    """Every video below a folder, to features in a store: one row a video frame, with masks for what is not real.

    Run again it goes on where it stopped: what is done with the same settings and weights is left alone. Exit
    codes: 0 all done; 1 could not start or stopped; 2 wrong usage; 3 finished, but some videos failed; 130 and 143
    stopped by SIGINT and SIGTERM.
    """
    with listening("videos") as stop:
        sys.exit(_extract(options, stop))


def _extract(options: dict[str, Any], stop: StopRequest) -> int:
    """The command, and its exit code."""
    from .extraction.provenance import identity
    from .runs import plan as planning
    from .runs.discover import find_sources

    target = target_of(options["workers"], options["scheduler"], options["jobqueue"])
    config, run = _configs(options)
    sources = find_sources(options["videos"], options["annotations"], options["aligned"])
    place = options["store"] or str(options["videos"].resolve().parent / "features.zarr")
    selection = planning.Selection(
        chosen_trials(options["trials"], options["trials_from"]),
        options["shard"],
        options["overwrite"],
        options["retry_failed"],
        options["limit"],
    )
    weights, lacking = _weights(config, options)
    fingerprint = identity(config, weights) if lacking is None else None
    store = _look_into(place)  # a run that is refused makes none
    plan = planning.make_plan(sources, config, store, fingerprint, selection, weights)
    if lacking is not None and not options["dry_run"]:  # after what is wrong with the inputs
        raise lacking
    _tell_plan(plan, weights, lacking)
    if store is not None and options["annotations"] is None and plan.jobs:
        _tell_forgotten(store)
    if plan.replaced:
        _tell_replacing(planning.replacing_line(plan.replaced), place, options["replace"])
    if options["dry_run"]:
        _tell_dry_run(plan, options["as_json"])
        return 0
    store = _open_store(place)
    store.repair_groups(plan.done)
    _record_inputs(store, options, weights)
    summary = _run(plan, store, config, run, weights, target, stop, options)
    if options["as_json"]:
        click.echo(json.dumps(summary.as_json()))
    return _tell_end(summary, store)


def _weights(config: ExtractConfig, options: dict[str, Any]) -> tuple[dict[str, WeightSource], WeightsMissing | None]:
    """The weights, or which are missing: a dry run needs none."""
    from ..encoders.weights.resolve import resolve, weight_names

    try:
        return resolve(
            weight_names(config.networks, config.vggish_output), dict(options["weights"]), options["untrained"]
        ), None
    except WeightsMissing as error:
        return {}, error


def _tell_replacing(line: str, place: str, asked_for: bool) -> None:
    """Raises click.ClickException target nobody has asked for it."""
    if not asked_for:
        raise click.ClickException(
            f"{place}: {line}. --replace makes them anew; or give the former settings, or name another --store"
        )
    click.echo(f"note: {line}", err=True)


def _configs(options: dict[str, Any]) -> tuple[ExtractConfig, RunConfig]:
    config = ExtractConfig(
        features=options["features"],
        face=options["face"],
        detect_every=options["detect_every"],
        missing_face=options["missing_face"],
        audio_align=options["audio_align"],
        vggish_output=options["vggish_output"],
        precision=options["precision"],
        aligned=options["aligned"] is not None,
        video_stream=options["video_stream"],
        audio_stream=options["audio_stream"],
    )
    return config, RunConfig(
        device=options["device"],
        batch_size=options["batch_size"],
        stall_timeout_s=options["stall_timeout"],
        videos_at_once=options["videos_at_once"] or 0,
        timeout_factor=options["timeout_factor"],
    )


def _open_store(target: str) -> FeatureStore:
    """The store, made if need be, and rid of what dead runs have left."""
    from ..features_store.store import FeatureStore

    store = FeatureStore(target, mode="a")
    store.sweep()
    return store


def _look_into(target: str) -> FeatureStore | None:
    """The store as it is; None where there is none yet."""
    from ..features_store.disk.backends import open_files
    from ..features_store.schema import NODE_FILE
    from ..features_store.store import FeatureStore

    return FeatureStore(target) if open_files(target).is_file(NODE_FILE) else None


def _tell_forgotten(store: FeatureStore) -> None:
    from ..features_store.records.provenance import read_inputs

    if annotations := read_inputs(store.files).annotations:
        click.echo(
            f"note: earlier runs over this store had --annotations {shlex.quote(annotations)}; without it new trials "
            "are called as their videos, and have a row a frame",
            err=True,
        )


def _record_inputs(store: FeatureStore, options: dict[str, Any], weights: Mapping[str, WeightSource]) -> None:
    """Where it all came from, for `verify` and `train`; a store that cannot be written says so with its first trial."""
    from ..encoders.weights.resolve import files_given
    from ..features_store.records.provenance import inputs_of, record_inputs

    files = files_given(weights, {name for name, _ in options["weights"]})
    with suppress(OSError):
        record_inputs(store.files, inputs_of(options["videos"], options["annotations"], options["aligned"], files))


def _tell_plan(plan: Plan, weights: dict[str, WeightSource], lacking: WeightsMissing | None) -> None:
    """What a user should know before the run, on stderr."""
    if lacking is not None:
        click.echo(f"note: the run itself needs weights: {lacking}", err=True)
    untrained = [feature for feature, source in weights.items() if source.untrained_seed is not None]
    if line := untrained_line(untrained):
        click.echo(line, err=True)
    for feature, source in weights.items():
        if source.same_as:
            click.echo(f"note: {feature} uses the weights of {source.same_as}: both features are equal.", err=True)
    for note in plan.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(
        f"{counted(len(plan.jobs), 'video')} to do, {len(plan.done)} done before, "
        f"{len(plan.failures) + len(plan.failed_before)} failed",
        err=True,
    )


def _tell_dry_run(plan: Plan, as_json: bool) -> None:
    for failure in plan.failures:
        click.echo(flat(f"would fail: {failure.video}: {failure.reason}"), err=True)
    if as_json:
        click.echo(json.dumps({"todo": [job.trial for job in plan.jobs], "done": list(plan.done)}))
        return
    for job in plan.jobs:
        click.echo(escaped(job.trial))


def _run(
    plan: Plan,
    store: FeatureStore,
    config: ExtractConfig,
    run: RunConfig,
    weights: dict[str, WeightSource],
    target: ExecutionTarget,
    stop: StopRequest,
    options: dict[str, Any],
) -> Summary:
    """Do the plan. Raises Terminated when that was asked for."""
    from .runs.summary import begin_summary

    summary = begin_summary(plan, store)
    if plan.jobs:
        from .runs.progress import make_reporter
        from .runs.work import ExtractTask, run_plan

        work = ExtractTask(
            store.path, config, run, weights, plan.overwrite, plan.failures_known, replace=options["replace"]
        )
        reporter = make_reporter(options["verbose"], counts="picture" if config.visual else "sound")
        run_plan(plan, work, target, options["retries"], stop, reporter, summary)
        stop.raise_if_set()
    return summary


def _tell_end(summary: Summary, store: FeatureStore) -> int:
    """The end of a run on stderr, and the exit code."""
    for line in summary.failure_lines():
        click.echo(line, err=True)
    if summary.failed_before:
        click.echo("videos that failed before were left alone; --retry-failed tries them again", err=True)
    if summary.elsewhere:
        click.echo(
            f"{counted(len(summary.elsewhere), 'trial')} left to another run, which is doing or has done them", err=True
        )
    click.echo(
        f"{len(summary.receipts)} extracted, {summary.done_before} done before, {summary.failed} failed, "
        f"in {summary.seconds:.1f} s: {store.path}",
        err=True,
    )
    return 3 if summary.failed else 0
