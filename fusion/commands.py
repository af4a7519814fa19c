"""`avfuse train`, `finetune`, `compare`: options to a request, the runs that are left, the table, exit code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..batch.protocols import WorkerUnfit
from ..batch.signals import StopRequest, listening
from ..batch.torch_errors import torch_errors
from ..encoders.table import feature
from ..encoders.weights.resolve import WeightsMissing, WeightSource, resolve
from ..features_store.records.leaks import learned_from
from ..shell.errors import clean_errors, usage_errors
from ..shell.options import GroupedCommand
from ..shell.progress import say
from ..shell.text import preview, untrained_line
from .config import LESS_MEMORY
from .options import (
    COMPARE_GROUPS,
    FINETUNE_GROUPS,
    GROUPS,
    compare_options,
    compare_request,
    finetune_options,
    finetune_request,
    pictures_request,
    request_to_describe,
    train_options,
    train_request,
)
from .requests import CompareRequest, FinetuneRequest, PicturesRequest, TrainRequest
from .tasks.table import TASKS

if TYPE_CHECKING:
    from .config import TrainConfig
    from .runs.call import Call
    from .runs.crossval import RunSpec


@click.command(cls=GroupedCommand, groups=GROUPS)
@train_options
@clean_errors(WorkerUnfit)
@torch_errors(LESS_MEMORY)
def train(describe: bool, **given: Any) -> None:
    """Train the fusion head on one fold, or on all of them, of the features in a store.

    RUN then holds the best network, its settings, scores (metrics.json), history.csv, predictions and plots. A
    second call leaves finished runs alone. Exit codes: 0 all done, or left to another call that is training it; 1
    could not start, or a run failed while the others went on; 2 wrong usage; 130 and 143 stopped by SIGINT and
    SIGTERM.
    """
    if describe:
        _describe(request_to_describe(**given))
        return
    with listening("runs") as stop:
        _train(train_request(**given), stop)


@click.command(cls=GroupedCommand, groups=FINETUNE_GROUPS)
@finetune_options
@clean_errors(WorkerUnfit, WeightsMissing)
@torch_errors("a smaller --micro-batch, batch_size or --memory-gb")
def finetune(images: Path | None, **given: Any) -> None:
    """Train the head together with the networks that make its features, from the crops and patches in a store.

    RUN then holds what a run of `train` holds, and the tuned networks of the best epoch: iresnet50.safetensors,
    logmel_vgg.safetensors, which `extract --weights` reads. Their layers are released group after group
    (docs/finetuning.md). A second call leaves finished runs alone. Exit codes as those of `train`. With --images the
    network of the face alone is tuned, on pictures with labels, before any video is seen.
    """
    if images is not None:
        with listening("epochs") as stop:
            _finetune_on_pictures(pictures_request(images, **given), stop)
        return
    with listening("runs") as stop:
        _finetune(finetune_request(**given), stop)


@click.command(cls=GroupedCommand, groups=COMPARE_GROUPS)
@compare_options
@clean_errors(WorkerUnfit)
@torch_errors(LESS_MEMORY)
def compare(**given: Any) -> None:
    """Train several systems, features or settings on the same folds, and compare them trial by trial.

    The runs are those of `train`, in OUT/CELL/fold<K>/seed<S>; OUT/compare.txt, .md, .tex, .csv, .json and .png have
    their table, the differences with intervals, and the chart. A second call does what is left. Exit codes as those of
    `train`.
    """
    with listening("runs") as stop:
        _compare(compare_request(**given), stop)


def _describe(request: TrainRequest) -> None:
    from ..features_store.store import FeatureStore
    from .describe import describe, shapes_of

    with usage_errors():
        config = request.config()
    store = FeatureStore(request.store) if request.store else None
    found = describe(config, shapes_of(config.modalities, store))
    click.echo(json.dumps(found.as_json(), indent=2) if request.as_json else "\n".join(found.lines()))


def _train(request: TrainRequest, stop: StopRequest) -> None:
    from .runs.call import open_call

    with usage_errors():
        config = request.config()
    _do_runs(config, open_call(request, TASKS[config.task].labels), stop)


def _finetune(request: FinetuneRequest, stop: StopRequest) -> None:
    import torch

    from .finetuning.learner import open_backbones
    from .runs.call import open_call

    with usage_errors():
        tuned = request.networks()
    found = _sources(request, list(tuned.networks))
    sources = {  # for workers in another folder
        name: source if source.path is None else replace(source, path=source.path.resolve())
        for name, source in found.items()
    }
    with usage_errors():
        config = request.config(sources)
    open_backbones(config, sources, torch.device("cpu"))  # what is wrong with weights or groups is said at once
    call = open_call(request, TASKS[config.task].labels, sources)
    for number in call.folds:
        for name, source in sources.items():
            if seen := learned_from(source.tuning, call.manifest.fold(number).validation):
                say(
                    f"warning: fold {number} validates on {preview(seen)}, and the weights of {name} that it begins "
                    "from were tuned on them: its scores say nothing"
                )
    _do_runs(config, call, stop)


def _finetune_on_pictures(request: PicturesRequest, stop: StopRequest) -> None:
    from ..features_store.interchange.result_files import check_place
    from .config import RunConfig
    from .data.runtime import room_of
    from .finetuning.backbones import open_backbone, parse_groups
    from .finetuning.on_pictures import train_on_pictures
    from .finetuning.pictures import read_table

    with usage_errors():
        config, (tuned, network) = request.config(), request.network()
    check_place(request.out)
    run = RunConfig(request.device, request.precision, False, request.memory_gb)
    source = _sources(request, [tuned])[tuned]
    pictures = read_table(request.images, request.table, config.validation_share, config.seed)
    if line := untrained_line([tuned] if source.is_untrained else []):
        say(line)
    groups = parse_groups(config.visual_groups) if config.visual_groups else None
    backbone = open_backbone(network, source, room_of(run).device, groups)
    found = train_on_pictures(backbone, pictures, config, run, request.out, say, resume=request.resume, stop=stop)
    if request.as_json:
        click.echo(json.dumps(found))


def _sources(request: FinetuneRequest | PicturesRequest, tuned: Sequence[str]) -> dict[str, WeightSource]:
    """The weights that networks begin from. Raises click.UsageError on --weights that none of them takes."""
    given = dict(request.weights)
    takers = {*tuned, *(feature(name).else_network for name in tuned if name not in given)}
    if unused := [name for name in given if name not in takers]:
        chosen = "--visual chooses" if isinstance(request, PicturesRequest) else "--visual and --audio choose"
        raise click.UsageError(
            f"--weights {', '.join(unused)}: only {' and '.join(tuned)} can have weights here; {chosen} what is tuned"
        )
    return resolve(tuned, given, request.untrained)


def _do_runs(config: TrainConfig, call: Call, stop: StopRequest) -> None:
    """The runs of `train` or of `finetune`, folds × seeds, and their table."""
    from .runs.call import train_runs
    from .runs.crossval import plan_runs

    whole = plan_runs(call.request.out, call.folds, call.seeds, config)
    ended = train_runs(call, whole, stop, several=len(whole) > 1)
    if ended.done or ended.elsewhere or not ended.failed:
        _print_results(ended.done, call, config, call.request.as_json, several=len(whole) > 1)
    ended.raise_failures()


def _print_results(done: Sequence[RunSpec], call: Call, config: TrainConfig, as_json: bool, several: bool) -> None:
    """The table of the runs, of `several` with those of other calls below --out, and the scores as JSON."""
    from .artifacts.state import read_metrics
    from .runs.crossval import differing, sum_up

    @cache
    def belongs(run: RunSpec) -> bool:
        """Whether a finished run of another call belongs in the table; one that does not is named, once."""
        if run in done:
            return True
        reasons = []
        try:
            other = differing([run], call.check, call.run, call.request.allow_other_features)
            reasons += [each.of(run.folder) for each in other.values()]
        except ValueError as error:  # a fold that no longer exists, for example
            reasons.append(f"{run.folder}: {error}")
        for reason in reasons:
            say(f"note: not in the table: {reason}")
        return not reasons

    if lines := sum_up(call.request.out, done, config, belongs, alone=not several):
        click.echo("\n".join(lines), err=as_json)
    if as_json:
        runs = [{"fold": run.fold, "seed": run.config.seed, "run": str(run.folder)} for run in done]
        click.echo(json.dumps([{**each, **read_metrics(run.folder)} for each, run in zip(runs, done, strict=True)]))


def _compare(request: CompareRequest, stop: StopRequest) -> None:
    from .runs.call import open_call, others_done, train_runs
    from .runs.compare import plan_cells, plan_comparison, write_comparison

    with usage_errors():
        cells = plan_cells(request)
    call = open_call(request, TASKS[next(iter(cells.values())).task].labels)
    whole = plan_comparison(request, cells, call.folds, call.seeds)
    ended = train_runs(call, whole, stop, several=True)
    others = [run for run in whole if run not in ended.runs]  # of other parts of a job array
    done = {*ended.done, *others_done(call, others)}
    content, lines = write_comparison(call, cells, whole, [run for run in whole if run in done], ended.failed)
    if lines:
        click.echo("\n".join(lines), err=request.as_json)
    if request.as_json:
        click.echo(json.dumps(content))
    ended.raise_failures()
