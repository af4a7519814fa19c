"""The options that choose folds, and the manifest they make: what `folds` and `train` share."""

from __future__ import annotations

import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import click

from ...features_store.labels.corpus import Corpus, label_name, open_corpus
from ...features_store.labels.kinds import VA, LabelKind
from ...shell.options import FILE, FOLDER, with_options
from ...shell.text import escaped, preview
from .manifest import Fold, Manifest, read_manifest
from .split import make_folds
from .subjects import GroupChoice, read_groups

FOLD_OPTIONS = (
    click.option(
        "--annotations",
        type=FOLDER,
        help="Folder of labels: Aff-Wild2's, at any depth, or one CSV file per trial. "
        "[default: the one that `extract` was given for the store]",
    ),
    click.option(
        "--folds",
        type=click.IntRange(min=2),
        metavar="N",
        help="Number of folds if there is no official split. [default: the official split's six]",
    ),
    click.option(
        "--group",
        type=click.Choice(get_args(GroupChoice)),
        default="auto",
        show_default=True,
        help="Keep trials of one subject together (_left, _right, parts): if names show them, always, or never.",
    ),
    click.option(
        "--groups",
        type=FILE,
        help="CSV file `trial,subject`: which trials to keep together. [default: as the names show]",
    ),
)

manifest_option = click.option(
    "--manifest",
    type=FILE,
    help="Fold manifest to use instead of the folds of --annotations. [default: none]",
)

fold_options = partial(with_options, options=FOLD_OPTIONS)


def annotations_or_remembered(annotations: Path | None, store: str) -> Path:
    """The folder of labels that is given, else the one that `extract` was given for this store, named on stderr.

    Raises ValueError, with what to type, where the store remembers none, where that one is no longer there, or where
    the location does not hold a store.
    """
    if annotations is not None:
        return annotations
    from ...features_store.disk.backends import open_files  # noqa: PLC0415 - zarr only where it is used
    from ...features_store.records.provenance import read_inputs  # noqa: PLC0415
    from ...features_store.store import FeatureStore  # noqa: PLC0415

    remembered = read_inputs(open_files(store)).annotations
    if remembered is None:
        FeatureStore(store)  # where there is none, that is what is wrong
        raise ValueError(
            f"{store} remembers no folder of labels, since it was extracted without --annotations; "
            "give --annotations DIR"
        )
    if not Path(remembered).is_dir():
        raise ValueError(
            f"{remembered}, the folder of labels that {store} was extracted with, is no longer there; "
            "give --annotations DIR"
        )
    click.echo(escaped(f"note: --annotations {shlex.quote(remembered)} (remembered by {store})"), err=True)
    return Path(remembered)


def manifest_of(
    annotations: Path,
    folds: int | None = None,
    group: GroupChoice = "auto",
    groups: Path | None = None,
    manifest: Path | None = None,
    kind: LabelKind = VA,
) -> tuple[Corpus, Manifest]:
    """The labels of a kind and their folds as the options have them; notes and warnings go to stderr.

    Raises ValueError if labels, table or manifest are wrong, or if the manifest names a trial without labels;
    OSError if a file cannot be read; click.UsageError if `manifest` comes with an option it replaces.
    """
    corpus = open_corpus(annotations, kind)
    if manifest is not None:
        if folds is not None or group != "auto" or groups is not None:
            raise click.UsageError("--manifest has the folds already: omit --folds, --group and --groups")
        return corpus, _fitted(read_manifest(manifest), manifest, corpus)
    table = read_groups(groups) if groups is not None else None
    if table is not None and (unknown := sorted(table.keys() - corpus.files.keys())):
        click.echo(f"note: trials of {groups} that the corpus does not have: {preview(unknown)}", err=True)
    made = make_folds(corpus, folds=folds, group=group, groups=table)
    if made.on_both_sides:
        names = ", ".join(made.on_both_sides)
        click.echo(f"warning: subjects that fold 0, the official split, has on both sides: {names}", err=True)
    if corpus.sets is not None and len(made.folds) == 1:
        click.echo(
            "warning: there is only fold 0: the training trials are too few for five slices, so folds 1-5 are left out",
            err=True,
        )
    return corpus, made


def _fitted(manifest: Manifest, path: Path, corpus: Corpus) -> Manifest:
    """The manifest by the labels' names, if every trial has labels; it may name them as a store does."""
    named = {trial for fold in manifest.folds for trial in (*fold.train, *fold.validation)}
    labels = {trial: label for trial in named if (label := label_name(corpus, trial)) is not None}
    if unknown := sorted(named - labels.keys()):
        raise ValueError(f"{path} names trials without labels below {corpus.root}: {preview(unknown)}")
    if unused := sorted(corpus.files.keys() - set(labels.values())):
        click.echo(f"note: trials with labels that {path} leaves out: {preview(unused)}", err=True)
    folds = []
    for fold in manifest.folds:
        train, validation = (tuple(labels[trial] for trial in side) for side in (fold.train, fold.validation))
        folds.append(Fold(fold.number, train, validation))
    return replace(manifest, folds=tuple(folds))
