"""`avfuse weights`: the published weights, and which of them are on this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NoReturn

import click

from ...features_store.disk.atomic import sha256_of
from ...shell.errors import clean_errors
from ...shell.progress import shows_bars
from ...shell.text import text_table
from ..table import TABLE
from .http import DownloadError
from .registry import FOLDERS, REGISTRY, WeightFile, entry
from .resolve import WeightsInvalid, WeightsMissing, cache_folder, local_folder, local_path, weight_folders

_MISMATCH = 3


@click.group()
def weights() -> None:
    """Pretrained weights: which there are, under which licence, and which of them are on this machine."""


@weights.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON list on stdout. [default: off]")
@clean_errors()
def list_weights(as_json: bool) -> None:
    """Every known file and folder: feature, architecture, size, licence, whether it is here; where each is from."""
    paths = {file.name: local_path(file) for file in REGISTRY.values()}
    folders = [folder for folder in FOLDERS.values() if folder.feature in TABLE]
    at = {folder.feature: local_folder(folder.feature) for folder in folders}
    if as_json:
        entries = [
            {
                "name": file.name,
                "feature": file.feature,
                "architecture": file.architecture,
                "size_bytes": file.size_bytes,
                "sha256": file.sha256,
                "sha256_prefix": file.sha256_prefix,
                "licence": file.licence,
                "from": file.url,
                "file": file.file_name,
                "note": file.note,
                "cached": None if paths[file.name] is None else str(paths[file.name]),
            }
            for file in REGISTRY.values()
        ]
        entries += [
            {
                "name": folder.feature,
                "feature": folder.feature,
                "licence": folder.licence,
                "from": folder.repository,
                "command": folder.command,
                "note": folder.note,
                "cached": None if at[folder.feature] is None else str(at[folder.feature]),
            }
            for folder in folders
        ]
        click.echo(json.dumps(entries, indent=2))
        return
    cells = [("name", "feature", "architecture", "size", "here", "licence")]
    for file in REGISTRY.values():
        size = "?" if file.size_bytes is None else f"{file.size_bytes / 1e6:.0f} MB"
        cells.append(
            (file.name, file.feature, file.architecture, size, "yes" if paths[file.name] else "no", file.licence)
        )
    for folder in folders:
        present = "yes" if at[folder.feature] else "no"
        cells.append((folder.feature, folder.feature, "folder", "?", present, folder.licence))
    click.echo("\n".join(text_table(cells, words=len(cells[0]))))
    # What does not fit into columns.
    for file in REGISTRY.values():
        known = file.sha256 or (f"begins with {file.sha256_prefix}" if file.sha256_prefix else "not known")
        click.echo(f"\n{file.name}: {file.note.removeprefix('by hand: ')}")
        click.echo(f"  from    {file.url or 'by hand'}")
        click.echo(f"  sha256  {known}")
        click.echo(f"  file    {paths[file.name] or file.file_name}")
    for folder in folders:
        click.echo(f"\n{folder.feature}: {folder.note or folder.repository}")
        click.echo(f"  from    {folder.command}")
        click.echo(f"  folder  {at[folder.feature] or f'--weights {folder.feature}=DIR'}")


@weights.command()
@click.argument("names", nargs=-1, metavar="NAME...")
@click.option("--all", "all_files", is_flag=True, help="Every file that has an address. [default: off]")
@clean_errors(DownloadError)
def fetch(names: tuple[str, ...], all_files: bool) -> None:
    """Download weights into the cache: https, resumed, sha256 checked before use.

    AVFUSE_WEIGHTS_MIRROR=https://… takes them from another folder; AVFUSE_OFFLINE=1 forbids all downloads.
    """
    from tqdm import tqdm

    from .download import fetch as download

    if bool(names) == all_files:
        raise click.UsageError("give the NAME of what to fetch, or --all")
    files = [file for file in REGISTRY.values() if file.url] if all_files else [entry(name) for name in names]
    for file in files:
        click.echo(f"{file.name}: licence: {file.licence}", err=True)
        # On a pipe or in a log a redrawn bar is noise.
        with tqdm(desc=file.name, unit="B", unit_scale=True, disable=not shows_bars(sys.stderr)) as bar:

            def show(done_bytes: int, total_bytes: int | None, bar: tqdm[NoReturn] = bar) -> None:
                bar.total = total_bytes
                bar.update(done_bytes - bar.n)

            path = download(file, cache_folder(), show)
        click.echo(str(path))


@weights.command()
@click.argument("name", required=False)
@clean_errors(WeightsMissing)
def verify(name: str | None) -> None:
    """Hash the files again, all or the one called NAME. Exit code 3 when one is not as published."""
    files = [entry(name)] if name else [file for file in REGISTRY.values() if local_path(file)]
    if not files:
        click.echo(f"nothing in {_places()}")
    mismatch = False
    for file in files:
        path = _cached(file)
        sha256 = sha256_of(path)
        damaged = file.sha256_prefix is not None and not file.matches(sha256)
        word = "no published hash" if file.sha256_prefix is None else "MISMATCH" if damaged else "ok"
        expected = f", expected {file.sha256_prefix}" if damaged else ""
        click.echo(f"{file.name}: {word}: {path} has sha256 {sha256}{expected}", err=damaged)
        mismatch = mismatch or damaged
    if mismatch:
        sys.exit(_MISMATCH)


@weights.command()
@click.argument("name")
@clean_errors(WeightsMissing, WeightsInvalid)
def path(name: str) -> None:
    """Where the file called NAME is: in $AVFUSE_WEIGHTS, else in the cache."""
    click.echo(str(_cached(entry(name))))


def _cached(file: WeightFile) -> Path:
    found = local_path(file)
    if found is None:
        fix = f"run `avfuse weights fetch {file.name}`" if file.url else file.note
        raise WeightsMissing(f"{file.name} is not in {_places()}: {fix}")
    return found


def _places() -> str:
    return " or ".join(map(str, weight_folders() or [cache_folder()]))
