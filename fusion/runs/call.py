"""A call of `train` or of `compare`: its store, labels and folds; which of its runs are left; doing them.

    open_call ─ the runs that the command plans ─ train_runs: what is done, what failed, what others are doing

Tested by tests/fusion/runs/test_crossval.py, test_work.py and test_compare.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import click

from ...batch.options import target_of
from ...batch.signals import StopRequest
from ...batch.target import ExecutionTarget
from ...encoders.weights.resolve import WeightSource
from ...features_store.interchange.result_files import check_place
from ...features_store.labels.corpus import Corpus, open_corpus
from ...features_store.labels.kinds import LabelKind
from ...features_store.records.status import untrained_features
from ...features_store.store import FeatureStore
from ...shell.progress import say
from ...shell.text import command_line, counted, untrained_line
from ..config import RunConfig, TrainConfig
from ..folds.manifest import Manifest
from ..folds.options import manifest_of
from ..requests import RunsRequest
from ..results.folder import check_among_labels
from .crossval import RunSpec, differing, is_short, pending_runs, refusal, shard_of
from .experiment import Checked, DataKey, check_experiment, data_key
from .loggers import usable, wants_tensorboard
from .monitor import RunMonitor
from .work import TrainTask, do_runs


@dataclass(frozen=True)
class Call:
    """What a command was asked to do, opened; `extra`: further labels, only to train on.

    `weights`: of the networks that are tuned, by modality.
    """

    request: RunsRequest
    run: RunConfig
    target: ExecutionTarget
    store: FeatureStore
    corpus: Corpus
    manifest: Manifest
    extra: Corpus | None
    known: dict[tuple[DataKey, tuple[int, ...]], Checked]
    weights: Mapping[str, WeightSource] = field(default_factory=dict)

    @property
    def folds(self) -> list[int]:
        """Numbers of the folds that are asked for."""
        every = [fold.number for fold in self.manifest.folds]
        return every if self.request.fold is None else [self.request.fold]

    @property
    def seeds(self) -> range:
        """The seeds that are asked for."""
        return range(self.request.seed, self.request.seed + self.request.seeds)

    def check(self, config: TrainConfig, folds: tuple[int, ...]) -> Checked:
        """What the data of these settings is now; labels are read once. Raises ValueError as `check_experiment`."""
        key = data_key(config), folds
        if key not in self.known:
            allowed = (self.request.allow_other_features, self.request.allow_length_difference)
            of = (self.store, self.corpus, self.manifest, folds, config)
            self.known[key] = check_experiment(*of, *allowed, self.extra)
        return self.known[key]


@dataclass(frozen=True)
class Ended:
    """What became of the `runs` of a call: those that are `done`, here or by another call, and why others failed."""

    runs: Sequence[RunSpec]
    done: Sequence[RunSpec]
    failed: Mapping[RunSpec, str]
    elsewhere: Sequence[RunSpec]

    def raise_failures(self) -> None:
        """Raise click.ClickException if a run has failed."""
        if self.failed:
            reasons = "; ".join(f"{run.folder}: {why}" for run, why in self.failed.items())
            several = f"{len(self.failed)} of {counted(len(self.runs), 'run')} failed: "
            raise click.ClickException(f"{several if len(self.runs) > 1 else ''}{reasons}")


def open_call(request: RunsRequest, kind: LabelKind, weights: Mapping[str, WeightSource] | None = None) -> Call:
    """Open store and labels of this kind, and cut the folds; `weights`: of networks that are tuned.

    Raises ValueError, OSError and click.UsageError on what is wrong there.
    """
    target = target_of(request.workers, request.scheduler, request.jobqueue)
    cut = (request.folds, request.group, request.groups, request.manifest)
    corpus, manifest = manifest_of(request.annotations, *cut, kind)
    extra = None if request.extra_annotations is None else open_corpus(request.extra_annotations, kind)
    check_place(request.out)
    for labels in filter(None, (corpus, extra)):
        check_among_labels(request.out, labels)
    store = FeatureStore(request.store)
    return Call(request, request.run_config(), target, store, corpus, manifest, extra, {}, weights or {})


def train_runs(call: Call, whole: Sequence[RunSpec], stop: StopRequest, several: bool) -> Ended:
    """Do this call's part of the runs, those that are left; one of several that fails does not hold up the others.

    Raises ValueError on a folder that holds another run, and on data that does not fit.
    """
    request = call.request
    runs = shard_of(whole, *request.shard)
    todo = _plan(runs, call, several)
    task = TrainTask(
        store=call.store,
        corpus=call.corpus,
        manifest=call.manifest,
        folds=tuple(sorted({run.fold for run in todo})),
        config=(todo or whole)[0].config,
        run=call.run,
        allow_other_features=request.allow_other_features,
        plots=request.plots and usable("matplotlib.backends.backend_agg", "pictures"),
        figures=request.figures,
        tensorboard=wants_tensorboard(request.tensorboard),
        alone=any(run.folder == request.out for run in todo),
        allow_length_difference=request.allow_length_difference,
        replace=request.replace,
        command=command_line(),
        extra=call.extra,
        weights=call.weights,
    )
    # What a user should know, and what is wrong, before anything is read or is sent to a cluster.
    lines = []
    random = [name for name, source in call.weights.items() if source.untrained_seed is not None]
    if todo and (line := untrained_line([*untrained_features(call.store), *random])):
        lines.append(line)
    kinds = {data_key(run.config): run.config for run in todo}
    if not call.target.in_process or len(kinds) > 1:
        notes = [note for config in kinds.values() for note in call.check(config, task.folds).notes]
        lines += [f"note: {note}" for note in dict.fromkeys(notes)]
    for line in lines:
        say(line)
    monitor = RunMonitor(len(todo), say, lines)
    if todo:
        if call.target.starting:
            say(call.target.starting)
        do_runs(todo, task, call.target, request.retries, stop, monitor)
    done = [run for run in runs if run not in monitor.failed and run not in monitor.elsewhere]
    if monitor.elsewhere:  # those that another call has finished, on the same data as this one's, count
        done += others_done(call, monitor.elsewhere)
    return Ended(runs, sorted(done, key=runs.index), monitor.failed, monitor.elsewhere)


def others_done(call: Call, runs: Sequence[RunSpec]) -> list[RunSpec]:
    """Of these runs, which other calls do, those that are finished, on this call's data; others are named."""
    left = pending_runs(runs, resume=True)
    ended = [run for run in runs if run not in left]
    if other := differing(ended, call.check, call.run, call.request.allow_other_features):
        say(f"note: not counted: {refusal(other)}")
    return [run for run in ended if run not in other]


def _plan(runs: Sequence[RunSpec], call: Call, several: bool) -> list[RunSpec]:
    """The runs that are left, with notes. Raises ValueError on one whose folder holds another, without --replace.

    --allow-other-features leaves those alone that differ in features only.
    """
    request = call.request
    anew = differing(runs, call.check, call.run)
    if request.allow_other_features:
        for run, differences in anew.items():
            if not differences.without_features():
                say(f"note: {differences.of(run.folder)}; it is left as it is, or goes on from there")
        anew = {run: kept for run, each in anew.items() if (kept := each.without_features())}
    if anew and not request.replace:
        raise ValueError(refusal(anew))
    todo = pending_runs(runs, request.resume or several, anew)
    if short := [run for run in runs if run not in todo and is_short(run)]:
        say(f"note: {len(short)} finished with fewer epochs than asked for now; --resume goes on")
    if anew:
        (first, differences), *more = anew.items()
        others = f", and so are {len(more)} more of these runs" if more else ""
        say(f"note: {differences.of(first.folder)}; it is trained anew{others}")
    say(f"{counted(len(todo), 'run')} to do, {len(runs) - len(todo)} done before")
    return todo
