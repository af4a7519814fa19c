"""`avfuse folds`: parse, call, print."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ...features_store.interchange.result_files import check_file, made
from ...shell.errors import clean_errors
from ...shell.options import FILE, config_option, store_or_default
from ..results.folder import check_no_label
from ..tasks.table import TASKS
from .manifest import Manifest, manifest_json, write_manifest
from .options import annotations_or_remembered, fold_options, manifest_of
from .subjects import GroupChoice

_GROUPED = {"subject": "subjects as names show them", "file": "subjects of the table", "none": "none"}


@click.command()
@fold_options
@click.option(
    "--task", type=click.Choice(list(TASKS)), default="va", show_default=True, help="Of which labels: as for `train`."
)
@click.option("--out", type=FILE, help="JSON file to write the manifest to. [default: none]")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON. [default: a table]")
@config_option
@clean_errors()
def folds(
    annotations: Path | None,
    folds: int | None,
    group: GroupChoice,
    groups: Path | None,
    task: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """List which trials train and which validate in each fold, by name.

    Aff-Wild2: fold 0 is the official split; folds 1-5 each validate on a fifth of its training trials. Any other
    corpus is cut into --folds N. Trials of one subject stay on one side; fold 0 remains the official split, and a
    warning names the subjects that it has on both sides.
    """
    if annotations is None:
        annotations = annotations_or_remembered(None, store_or_default(None, "--annotations"))
    corpus, manifest = manifest_of(annotations, folds, group, groups, kind=TASKS[task].labels)
    if out is not None:
        check_no_label(out, corpus)
        if not out.is_file() or out.read_bytes() != manifest_json(manifest).encode():
            check_file(out)
        write_manifest(out, manifest, made(annotations=os.path.abspath(corpus.root)))
    click.echo(manifest_json(manifest).rstrip() if as_json else _table(manifest))
    if out is not None and not as_json:
        click.echo(f"manifest to {out}")


def _table(manifest: Manifest) -> str:
    """One line per fold, the subjects of several trials, and what grouping has moved."""
    lines = [f"{'fold':>4}  {'train':>6}  {'validation':>10}  {'moved':>5}"]
    moves = []
    for fold in manifest.folds:
        moved = [f"{move.trial} to {move.to}" for move in manifest.moved if move.fold == fold.number]
        lines.append(f"{fold.number:>4}  {len(fold.train):>6}  {len(fold.validation):>10}  {len(moved):>5}")
        if moved:
            moves.append(f"moved in fold {fold.number}: {', '.join(moved)}")
    if manifest.subjects:
        lines.append(f"kept together ({_GROUPED[manifest.grouping]}):")
        lines += [f"  {subject}: {', '.join(trials)}" for subject, trials in manifest.subjects.items()]
    return "\n".join([*lines, *moves])
