"""`avfuse status`, `verify`, `export`, `import-h5`: parse, call, print, exit code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .errors import clean_errors
from .options import FILE, PATH, STORE
from .text import counted, untrained_line

if TYPE_CHECKING:
    from .store import FeatureStore

EXIT_PROBLEMS = 3
_STORE_HELP = "Folder (or URL) of the feature store."


@click.command()
@click.option("--store", type=STORE, required=True, help=_STORE_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object [default: text].")
@clean_errors()
def status(store: str, as_json: bool) -> None:
    """Show what is done, unfinished and failed in a store."""
    import json

    from .status import status_lines, summarise
    from .store import FeatureStore

    summary = summarise(FeatureStore(store))
    click.echo(json.dumps(summary) if as_json else "\n".join(status_lines(summary)))


@click.command()
@click.option("--store", type=STORE, required=True, help=_STORE_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object [default: a line a problem].")
@click.pass_context
@clean_errors()
def verify(context: click.Context, store: str, as_json: bool) -> None:
    """Read every chunk again and check every checksum; exit code 3 where something is broken."""
    import json
    from dataclasses import asdict

    from .store import FeatureStore
    from .verify import verify as find_problems

    opened = FeatureStore(store)
    _say_untrained(opened)
    problems = []
    for problem in find_problems(opened):
        problems.append(asdict(problem))
        if not as_json:
            click.echo(str(problem))
    trials = len(opened)
    if as_json:
        click.echo(json.dumps({"store": store, "trials": trials, "problems": problems}))
    elif not problems:
        click.echo(f"{counted(trials, 'trial')}, every chunk read, every checksum right")
    if problems:
        context.exit(EXIT_PROBLEMS)


@click.command()
@click.option("--store", type=STORE, required=True, help=_STORE_HELP)
@click.option("--to", "to", required=True, type=click.Choice(["h5", "npy", "parquet", "csv"]), help="Format.")
@click.option(
    "--out",
    required=True,
    type=PATH,
    help="File to write for h5, folder for the others.",
)
@clean_errors()
def export(store: str, to: str, out: Path) -> None:
    """Write a store in another format."""
    from .export import export_store
    from .store import FeatureStore

    opened = FeatureStore(store)
    _say_untrained(opened)
    trials = export_store(opened, to, out)
    click.echo(f"{counted(trials, 'trial')} to {out}")


@click.command("import-h5")
@click.argument("file", required=False, type=FILE)
@click.option("--from", "source", type=FILE, help="The HDF5 file. [default: FILE]")
@click.option(
    "--store", type=STORE, required=True, help="Folder (or URL) of the feature store; made where there is none."
)
@clean_errors()
def import_h5(file: Path | None, source: Path | None, store: str) -> None:
    """Bring an exported HDF5 FILE back into a store, bit for bit."""
    from .importing import check_export
    from .importing import import_h5 as bring_back
    from .store import FeatureStore

    path = source or file
    if path is None or (source and file):
        raise click.UsageError("name one HDF5 file, as FILE or by --from")
    check_export(path)  # before a store is made
    opened = FeatureStore(store, mode="a")
    trials = bring_back(path, opened)
    _say_untrained(opened)
    click.echo(f"{counted(trials, 'trial')} from {path}")


def _say_untrained(store: FeatureStore) -> None:
    from .status import untrained_features

    if line := untrained_line(untrained_features(store)):
        click.echo(line, err=True)
