"""`avfuse folds`: parse, call, print."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ...features_store.interchange.result_files import check_file, made
from ...shell.errors import clean_errors
from ...shell.options import FILE, config_option
from ..results.folder import check_no_label
from .manifest import Fold, Manifest, manifest_json, write_manifest
from .options import fold_options, manifest_of


@click.command()
@fold_options
@click.option(
    "--out",
    type=FILE,
    help="JSON file to write the manifest to. [default: none]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON. [default: a table]")
@config_option
@clean_errors()
def folds(out: Path | None, as_json: bool, **options: Any) -> None:
    """Which trials train and which validate in each fold, by name.

    Aff-Wild2: fold 0 is the official split; folds 1-5 validate on a fifth of its train trials each. Another corpus
    is cut in --folds N. Trials of one subject are kept on one side; fold 0 stays the official split, and a warning
    names the subjects that it has on both.
    """
    corpus, manifest = manifest_of(**options)
    if out is not None:
        check_no_label(out, corpus)
        if not out.is_file() or out.read_bytes() != manifest_json(manifest).encode():
            check_file(out)
        write_manifest(out, manifest, made(annotations=os.path.abspath(corpus.root)))
    click.echo(manifest_json(manifest).rstrip() if as_json else "\n".join(_lines(manifest)))
    if out is not None and not as_json:
        click.echo(f"manifest to {out}")


def _lines(manifest: Manifest) -> Iterator[str]:
    yield f"{'fold':>4}  {'train':>6}  {'validation':>10}  {'moved':>5}"
    yield from (_row(fold, manifest) for fold in manifest.folds)
    if manifest.subjects:
        yield f"kept together ({_GROUPED[manifest.grouping]}):"
        yield from (f"  {subject}: {', '.join(trials)}" for subject, trials in manifest.subjects.items())
    for fold in manifest.folds:
        if moved := [f"{move.trial} to {move.to}" for move in manifest.moved if move.fold == fold.number]:
            yield f"moved in fold {fold.number}: {', '.join(moved)}"


_GROUPED = {"subject": "subjects as names show them", "file": "subjects of the table", "none": "none"}


def _row(fold: Fold, manifest: Manifest) -> str:
    moved = sum(move.fold == fold.number for move in manifest.moved)
    return f"{fold.number:>4}  {len(fold.train):>6}  {len(fold.validation):>10}  {moved:>5}"
