"""Runs over folds and seeds: each in its own folder, finished ones left alone, and the table at the end.

    OUT/                      one fold, one seed: the run itself
    OUT/fold0/seed0 …         else: a run each; OUT/crossval.{txt,md,csv,json} sums them up

Tested by tests/fusion/test_crossval.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..batch.shards import balanced
from ..features_store.disk import replace_file
from . import checkpoint
from .config import RunConfig, TrainConfig
from .description import Description, is_empty, read_description, write_description
from .environment import environment
from .experiment import Experiment
from .fold_scores import (
    CrossValidation,
    RunScore,
    cross_validation,
    cross_validation_cells,
    cross_validation_csv,
    cross_validation_json,
)
from .in_hand import is_in_hand
from .settings import differences
from .tables import markdown_table, text_table
from .train import Outcome, Watcher, train


@dataclass(frozen=True)
class Planned:
    """One run to do: fold, settings with its seed, folder."""

    fold: int
    config: TrainConfig
    folder: Path

    @property
    def name(self) -> str:
        """What it is called on the screen."""
        return f"fold {self.fold} seed {self.config.seed}"


def plan_runs(out: Path, folds: Sequence[int], seeds: Sequence[int], config: TrainConfig) -> list[Planned]:
    """The runs of a call, fold by fold. Raises ValueError where several are to go into the folder of one."""
    alone = len(folds) == len(seeds) == 1
    if not alone and (out / "config.json").is_file():
        raise ValueError(f"{out} holds one run, and several are to be trained; name another --out")
    return [
        Planned(fold, replace(config, seed=seed), out if alone else out / f"fold{fold}" / f"seed{seed}")
        for fold in folds
        for seed in seeds
    ]


def shard_of(runs: Sequence[Planned], index: int, count: int) -> list[Planned]:
    """Part `index` of `count` of these runs, in their order: the same on every machine, whatever is done already."""
    part = set(balanced({run.name: 1 for run in runs}, count)[index])
    return [run for run in runs if run.name in part]


def still_to_do(runs: Iterable[Planned], resume: bool) -> list[Planned]:
    """Runs that are not finished, also those in hand. Raises ValueError on another run, or one that may not go on."""
    left = []
    for run in runs:
        if is_empty(run.folder):
            left.append(run)
            continue
        found = _found(run)
        done = checkpoint.is_finished(run.folder)
        if not done and not resume and not is_in_hand(run.folder):
            raise ValueError(f"{run.folder} holds a run that has not ended: --resume goes on, or name another --out")
        if not done or (found.config.max_epochs < run.config.max_epochs and resume):
            left.append(run)
    return left


def stops_short(run: Planned) -> bool:
    """Whether a finished run was asked for fewer epochs than now, and has done them all."""
    epochs = checkpoint.epochs_done(run.folder)
    return read_description(run.folder).config.max_epochs <= epochs < run.config.max_epochs


def begin_run(planned: Planned, experiment: Experiment, run: RunConfig, allow_other: bool) -> Description:
    """Make a run's folder, or make sure that the one there is the run that is planned.

    Raises ValueError where the folder holds a run on other trials, labels or features.
    """
    described = experiment.describe(planned.config, planned.fold)
    if checkpoint.has_state(planned.folder):
        described = _same(planned.folder, described, allow_other)
    checkpoint.unmark_finished(planned.folder)
    write_description(planned.folder, described, environment(experiment.data, run))
    return described


def do_run(
    described: Description,
    folder: Path,
    experiment: Experiment,
    run: RunConfig,
    watcher: Watcher,
    keep: Callable[[Outcome], None],
) -> Outcome:
    """Train one run in its folder; it has finished when `keep` has written what comes of it.

    Raises ValueError where it cannot go on, and what torch raises.
    """
    outcome = train(described, experiment.data, run, folder, watcher)
    keep(outcome)
    checkpoint.write_finished(folder, outcome.reason, len(outcome.history))
    return outcome


def score_of(planned: Planned) -> RunScore:
    """The score of a finished run. Raises ValueError where its metrics.json cannot be read."""
    found = checkpoint.read_metrics(planned.folder)
    return RunScore(planned.fold, planned.config.seed, found["ccc_valence"], found["ccc_arousal"], found["epoch"])


def sum_up(out: Path, config: TrainConfig, runs: Sequence[Planned]) -> CrossValidation | None:
    """The table over these runs and all finished ones of the same settings below `out`, written there.

    As text, Markdown, CSV and JSON; None where there is no such run. Several calls may do so at once: each looks
    again after it has written, so that the last one to write has seen all runs.
    """
    written: dict[str, str] = {}
    while runs := _all_there(out, config, runs):
        result = cross_validation(score_of(run) for run in runs)
        files = dict(_files(result))
        if files == written:
            return result
        for name, content in files.items():
            replace_file(out / name, content.encode())
        written = files
    return None


def table_lines(result: CrossValidation) -> list[str]:
    """The table as text."""
    return [result.title, *text_table(cross_validation_cells(result))]


def _files(result: CrossValidation) -> Iterator[tuple[str, str]]:
    yield "crossval.txt", "\n".join([*table_lines(result), ""])
    yield "crossval.md", f"{result.title}\n\n{markdown_table(cross_validation_cells(result))}"
    yield "crossval.csv", cross_validation_csv(result)
    yield "crossval.json", json.dumps(cross_validation_json(result), indent=1) + "\n"


def _all_there(out: Path, config: TrainConfig, runs: Iterable[Planned]) -> list[Planned]:
    return list({(run.fold, run.config.seed): run for run in [*_others(out, config), *runs]}.values())


def _others(out: Path, config: TrainConfig) -> Iterator[Planned]:
    """Finished runs of earlier calls with these settings, seed and epochs aside."""
    for folder in sorted(out.glob("fold*/seed*")):
        if checkpoint.is_finished(folder):
            found = read_description(folder)
            alike = replace(found.config, seed=config.seed, max_epochs=config.max_epochs)
            if not differences(alike, config):
                yield Planned(found.fold.number, found.config, folder)


def _found(run: Planned) -> Description:
    """The run in a folder. Raises ValueError where it is another one than the one planned, or none."""
    if not (run.folder / "config.json").is_file():
        raise ValueError(f"{run.folder} holds other files and no run; name another --out")
    found = read_description(run.folder)
    told = differences(replace(found.config, max_epochs=run.config.max_epochs), run.config)
    if found.fold.number != run.fold:
        told.append(f"fold: {found.fold.number} → {run.fold}")
    if told:
        raise ValueError(f"{run.folder} holds a run with other settings ({'; '.join(told)}); name another --out")
    return found


def _same(folder: Path, described: Description, allow_other: bool) -> Description:
    """The run that goes on keeps its statistics. Raises ValueError where its trials or features have changed."""
    found = read_description(folder)
    if found.fold != described.fold:
        raise ValueError(f"{folder} was trained on other trials than there are now; name another --out")
    if found.labels_sha256 != described.labels_sha256:
        raise ValueError(f"{folder} was trained on other labels than there are now; name another --out")
    if found.features.widths != described.features.widths:
        raise ValueError(f"{folder} was trained on features of other widths than there are now; name another --out")
    if set(found.features.fingerprints) != set(described.features.fingerprints) and not allow_other:
        told = f"{folder} was trained on features of other settings or weights than {described.features.store} holds"
        raise ValueError(f"{told}; name another --out, or say --allow-other-features")
    return replace(described, statistics=found.statistics)
