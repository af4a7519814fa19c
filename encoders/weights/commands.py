"""`avfuse weights`: the published weights, and which of them are on this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from ...features_store.disk.atomic import sha256_of
from ...shell.errors import clean_errors
from ...shell.streams import shows_bars
from ...shell.text import text_table
from .http import DownloadError, Progress
from .registry import REGISTRY, WeightFile, entry
from .resolve import WeightsInvalid, WeightsMissing, cache_folder, local_path, weight_folders

_MISMATCH = 3


@click.group()
def weights() -> None:
    """Pretrained weights: which there are, under which licence, and which of them are here."""


@weights.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON list on stdout. [default: off]")
@clean_errors()
def list_weights(as_json: bool) -> None:
    """Every known weight file: feature, architecture, size, licence, here or not; then where each comes from."""
    entries = [_describe(file) for file in REGISTRY.values()]
    click.echo(json.dumps(entries, indent=2) if as_json else "\n".join(_table(entries)))


@weights.command()
@click.argument("names", nargs=-1, metavar="NAME...")
@click.option("--all", "all_files", is_flag=True, help="Every file that has an address. [default: off]")
@clean_errors(DownloadError)
def fetch(names: tuple[str, ...], all_files: bool) -> None:
    """Download weights into the cache: https, resumed, sha256 checked before use.

    AVFUSE_WEIGHTS_MIRROR=https://… takes them from another folder; AVFUSE_OFFLINE=1 forbids all downloads.
    """
    from .download import fetch as download

    if bool(names) == all_files:
        raise click.UsageError("give the NAME of what to fetch, or --all")
    files = [file for file in REGISTRY.values() if file.url] if all_files else [entry(name) for name in names]
    for file in files:
        click.echo(f"{file.name}: licence: {file.licence}", err=True)
        with _bar(file) as progress:
            path = download(file, cache_folder(), progress)
        click.echo(str(path))


@weights.command()
@click.argument("name", required=False)
@clean_errors(WeightsMissing)
def verify(name: str | None) -> None:
    """Hash the files again, all or the one called NAME. Exit code 3 when one is not as published."""
    files = [entry(name)] if name else [file for file in REGISTRY.values() if local_path(file)]
    verdicts = [_verdict(file, _cached(file)) for file in files]
    if not files:
        click.echo(f"nothing in {_places()}")
    if not all(verdicts):
        sys.exit(_MISMATCH)


@weights.command()
@click.argument("name")
@clean_errors(WeightsMissing, WeightsInvalid)
def path(name: str) -> None:
    """Where the file called NAME lies: in $AVFUSE_WEIGHTS, else in the cache."""
    click.echo(str(_cached(entry(name))))


def _cached(file: WeightFile) -> Path:
    found = local_path(file)
    if found is None:
        fix = f"run `avfuse weights fetch {file.name}`" if file.url else file.note
        raise WeightsMissing(f"{file.name} is not in {_places()}: {fix}")
    return found


def _places() -> str:
    return " or ".join(map(str, weight_folders() or [cache_folder()]))


def _verdict(file: WeightFile, found: Path) -> bool:
    sha256 = sha256_of(found)
    ok = file.sha256_prefix is None or file.matches(sha256)
    expected = f", expected {file.sha256_prefix}" if not ok else ""
    word = "no published hash" if file.sha256_prefix is None else "ok" if ok else "MISMATCH"
    click.echo(f"{file.name}: {word}: {found} has sha256 {sha256}{expected}", err=not ok)
    return ok


def _describe(file: WeightFile) -> dict[str, str | int | None]:
    found = local_path(file)
    return {
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
        "cached": str(found) if found else None,
    }


def _table(entries: list[dict[str, str | int | None]]) -> Iterator[str]:
    """A line a file, then for each what does not fit into columns."""
    header = ("name", "feature", "architecture", "size", "here", "licence")
    yield from text_table(
        [
            header,
            *(
                (
                    str(each["name"]),
                    str(each["feature"]),
                    str(each["architecture"]),
                    f"{size / 1e6:.0f} MB" if isinstance(size := each["size_bytes"], int) else "?",
                    "yes" if each["cached"] else "no",
                    str(each["licence"]),
                )
                for each in entries
            ),
        ],
        words=len(header),
    )
    for each in entries:
        prefix = each["sha256_prefix"]
        known = each["sha256"] or (f"begins with {prefix}" if prefix else "not known")
        yield f"\n{each['name']}: {str(each['note']).removeprefix('by hand: ')}"
        yield f"  from    {each['from'] or 'by hand'}"
        yield f"  sha256  {known}"
        yield f"  file    {each['cached'] or each['file']}"


@contextmanager
def _bar(file: WeightFile) -> Iterator[Progress]:
    from tqdm import tqdm

    # On a pipe or in a log a redrawn bar is noise.
    with tqdm(desc=file.name, unit="B", unit_scale=True, disable=not shows_bars(sys.stderr)) as bar:

        def show(done_bytes: int, total_bytes: int | None) -> None:
            bar.total = total_bytes
            bar.update(done_bytes - bar.n)

        yield show
