"""The options that choose folds, and the manifest they make: what `folds` and `train` share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import click

from ...features_store.labels.corpus import Corpus, label_name, open_corpus
from ...shell.options import FILE, FOLDER, Command, with_options
from ...shell.text import preview
from .manifest import Fold, Manifest, read_manifest
from .split import make_folds
from .subjects import GroupChoice, read_groups

_OPTIONS = (
    click.option(
        "--annotations",
        type=FOLDER,
        required=True,
        help="Folder of labels: Aff-Wild2's VA_Estimation_Challenge anywhere below, or a CSV file a trial.",
    ),
    click.option(
        "--folds",
        type=click.IntRange(min=2),
        metavar="N",
        help="Number of folds where there is no official split. [default: the official split's six]",
    ),
    click.option(
        "--group",
        type=click.Choice(get_args(GroupChoice)),
        default="auto",
        show_default=True,
        help="Keep trials of one subject together (_left, _right, parts): where names show them, always, or never.",
    ),
    click.option(
        "--groups",
        type=FILE,
        help="CSV file `trial,subject`: whose trials to keep together. [default: as the names show]",
    ),
)

manifest_option = click.option(
    "--manifest",
    type=FILE,
    help="Fold manifest to use in place of the folds of --annotations. [default: none]",
)


def fold_options(command: Command) -> Command:
    """Give a command `--annotations`, `--folds`, `--group` and `--groups`, in this order."""
    return with_options(command, _OPTIONS)


def manifest_of(
    annotations: Path,
    folds: int | None = None,
    group: GroupChoice = "auto",
    groups: Path | None = None,
    manifest: Path | None = None,
) -> tuple[Corpus, Manifest]:
    """The corpus and its folds as the options have them; what is noteworthy goes to stderr.

    Raises ValueError where labels, table or manifest are wrong, or the manifest names a trial without labels;
    OSError where a file cannot be read; click.UsageError where `manifest` comes with an option it replaces.
    """
    corpus = open_corpus(annotations)
    if manifest is not None:
        if folds is not None or group != "auto" or groups is not None:
            raise click.UsageError("--manifest has the folds already: leave --folds, --group and --groups out")
        return corpus, _fitting(read_manifest(manifest), manifest, corpus)
    table = read_groups(groups) if groups is not None else None
    if table is not None:
        _note(f"trials of {groups} that the corpus has not", table.keys() - corpus.files.keys())
    made = make_folds(corpus, folds=folds, group=group, groups=table)
    for line in warnings_of(corpus, made):
        click.echo(f"warning: {line}", err=True)
    return corpus, made


def warnings_of(corpus: Corpus, manifest: Manifest) -> list[str]:
    """What a user should know about folds that have been made, a line each."""
    lines = []
    if manifest.on_both_sides:
        names = ", ".join(manifest.on_both_sides)
        lines.append(f"subjects that fold 0, the official split, has on both sides: {names}")
    if corpus.sets is not None and len(manifest.folds) == 1:
        lines.append("there is only fold 0: the train trials make no five slices, so folds 1-5 are left out")
    return lines


def _fitting(manifest: Manifest, path: Path, corpus: Corpus) -> Manifest:
    """The manifest, where its trials have labels; it may name them as the labels or as a store does."""
    named = {trial for fold in manifest.folds for trial in (*fold.train, *fold.validation)}
    labels = {trial: label for trial in named if (label := label_name(corpus, trial)) is not None}
    if unknown := sorted(named - labels.keys()):
        raise ValueError(f"{path} names trials without labels below {corpus.root}: {preview(unknown)}")
    _note(f"trials with labels that {path} leaves out", corpus.files.keys() - set(labels.values()))
    folds = (
        Fold(fold.number, tuple(map(labels.__getitem__, fold.train)), tuple(map(labels.__getitem__, fold.validation)))
        for fold in manifest.folds
    )
    return replace(manifest, folds=tuple(folds))


def _note(text: str, trials: set[str]) -> None:
    if trials:
        click.echo(f"note: {text}: {preview(sorted(trials))}", err=True)
