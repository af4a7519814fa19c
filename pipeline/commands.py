"""The pipeline's commands: parse, call, print, exit code."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..batch.stopping import Stop, listening
from ..batch.torch_errors import torch_errors
from ..batch.where import Where, where_of
from ..batch.work import WorkerUnfit
from ..features_store.errors import clean_errors, escaped, flat
from ..features_store.options import FOLDER, GroupedCommand, chosen_trials
from ..features_store.text import counted, untrained_line
from .config import LESS_MEMORY, ExtractConfig, RunConfig
from .media import MediaError
from .options import GROUPS, extract_options
from .weights import WeightsMissing, WeightSource

if TYPE_CHECKING:
    from ..features_store.store import FeatureStore
    from .plan import Plan
    from .summary import Summary


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


def _extract(options: dict[str, Any], stop: Stop) -> int:
    """The command, and its exit code."""
    from . import plan as planning
    from .discover import find_sources
    from .provenance import identity

    where = where_of(options["workers"], options["scheduler"], options["jobqueue"])
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
    store.mend_groups(plan.done)
    _record_inputs(store, options, weights)
    summary = _run(plan, store, config, run, weights, where, stop, options)
    if options["as_json"]:
        click.echo(json.dumps(summary.as_json()))
    return _tell_end(summary, store)


def _weights(config: ExtractConfig, options: dict[str, Any]) -> tuple[dict[str, WeightSource], WeightsMissing | None]:
    """The weights, or which are missing: a dry run needs none."""
    from .weights import resolve, weight_names

    try:
        return resolve(weight_names(config), dict(options["weights"]), options["untrained"]), None
    except WeightsMissing as error:
        return {}, error


def _tell_replacing(line: str, place: str, asked_for: bool) -> None:
    """Raises click.ClickException where nobody has asked for it."""
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


def _open_store(where: str) -> FeatureStore:
    """The store, made if need be, and rid of what dead runs have left."""
    from ..features_store.store import FeatureStore

    store = FeatureStore(where, mode="a")
    store.sweep()
    return store


def _look_into(where: str) -> FeatureStore | None:
    """The store as it is; None where there is none yet."""
    from ..features_store.files import open_files
    from ..features_store.schema import NODE_FILE
    from ..features_store.store import FeatureStore

    return FeatureStore(where) if open_files(where).is_file(NODE_FILE) else None


def _tell_forgotten(store: FeatureStore) -> None:
    from ..features_store.inputs import read_inputs

    if annotations := read_inputs(store.files).annotations:
        click.echo(
            f"note: earlier runs over this store had --annotations {shlex.quote(annotations)}; without it new trials "
            "are called as their videos, and have a row a frame",
            err=True,
        )


def _record_inputs(store: FeatureStore, options: dict[str, Any], weights: Mapping[str, WeightSource]) -> None:
    """Where it all came from, for `verify` and `train`; a store that cannot be written says so with its first trial."""
    from ..features_store.inputs import inputs_of, record_inputs
    from .weights import files_given

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
    where: Where,
    stop: Stop,
    options: dict[str, Any],
) -> Summary:
    """Do the plan. Raises StoppedBySignal when that was asked for."""
    from .summary import begin_summary

    summary = begin_summary(plan, store)
    if plan.jobs:
        from .progress import make_reporter
        from .run import ExtractWork, run_plan

        work = ExtractWork(
            store.path, config, run, weights, plan.overwrite, plan.failures_known, replace=options["replace"]
        )
        reporter = make_reporter(options["verbose"], counts="picture" if config.visual else "sound")
        run_plan(plan, work, where, options["retries"], stop, reporter, summary)
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


@click.command()
@click.option("--store", type=FOLDER, default="features.zarr", show_default=True, help="Where a store would be.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable findings on stdout. [default: off]")
@clean_errors(MediaError)
def doctor(store: Path, as_json: bool) -> None:
    """What works on this machine, and how to fix what does not. Exit code 1 when extract cannot start."""
    from dataclasses import asdict

    from .doctor import examine, summed_up

    findings = list(examine(store))
    can_start = all(finding.ok or not finding.needed for finding in findings)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            fix = "" if finding.ok else f" -> {finding.fix}"
            click.echo(f"{finding.word:8}{finding.what:{width}}  {finding.found}{fix}")
        click.echo(summed_up(findings), err=not can_start)
    sys.exit(int(not can_start))
