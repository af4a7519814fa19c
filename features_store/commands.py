"""`avfuse status`, `verify`, `export`, `import-h5`: parse, call, print, exit code."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..shell.errors import clean_errors
from ..shell.options import FILE, NAME_LIST, PATH, STORE, chosen_trials, trial_options, with_options
from ..shell.text import counted, in_words, untrained_line

if TYPE_CHECKING:
    from .store import FeatureStore


EXIT_PROBLEMS = 3
_with_trials = partial(with_options, options=trial_options("export"))
_STORE_HELP = "Folder (or URL) of the feature store."


@click.command()
@click.option("--store", type=STORE, required=True, help=_STORE_HELP)
@click.option(
    "--trials",
    "each",
    is_flag=True,
    help="One line per trial: rows, faces, sound, gaps, and each feature: done, missing … [default: off]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object [default: text].")
@clean_errors()
def status(store: str, each: bool, as_json: bool) -> None:
    """Show what is done, unfinished and failed in a store, and the warnings."""
    import json
    from dataclasses import asdict

    from .records.status import status_lines, summarise, trial_states, trial_table
    from .store import FeatureStore

    opened = FeatureStore(store)
    summary = summarise(opened)
    states = trial_states(opened, summary["features"]) if each else []
    if as_json:
        click.echo(json.dumps({**summary, **({"by_trial": [asdict(state) for state in states]} if each else {})}))
    else:
        click.echo("\n".join([*trial_table(states), *status_lines(summary, all_warnings=each)]))


@click.command()
@click.option("--store", type=STORE, required=True, help=_STORE_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object [default: one line per problem].")
@click.pass_context
@clean_errors()
def verify(context: click.Context, store: str, as_json: bool) -> None:
    """Read every chunk again and check every checksum; exit code 3 if something is broken, with how to fix it."""
    import json
    from dataclasses import asdict

    from .records.verify import fix_commands
    from .records.verify import verify as find_problems
    from .store import FeatureStore

    opened = FeatureStore(store)
    _say_untrained(opened)
    problems = []
    for problem in find_problems(opened):
        problems.append(asdict(problem))
        if not as_json:
            click.echo(str(problem))
    trials = len(opened)
    fix = fix_commands(opened, [problem["trial"] for problem in problems]) if problems else []
    if as_json:
        click.echo(json.dumps({"store": store, "trials": trials, "problems": problems, "fix": fix}))
    elif not problems:
        click.echo(f"{counted(trials, 'trial')}, every chunk read, every checksum right")
    else:
        unknown = ", with your folders instead of …" if any("…" in command for command in fix) else ""
        click.echo("\n".join([f"how to fix{unknown}:", *(f"  {command}" for command in fix)]), err=True)
    if problems:
        context.exit(EXIT_PROBLEMS)


@click.command()
@click.option("--store", type=STORE, required=True, help=_STORE_HELP)
@click.option("--to", "to", required=True, type=click.Choice(["h5", "npy", "parquet", "csv"]), help="Format.")
@click.option("--out", required=True, type=PATH, help="File to write for h5, folder for the others.")
@click.option(
    "--features", type=NAME_LIST, help="Features to export, separated by commas, besides the times. [default: all]"
)
@click.option("--overwrite", is_flag=True, help="Replace existing files. [default: off]")
@_with_trials
@clean_errors()
def export(store: str, to: str, out: Path, features: str | None, overwrite: bool, **chosen: Any) -> None:
    """Write a store, or some of its trials and features, in another format."""
    import shutil

    from .interchange.export import Choice, estimated_bytes, export_store
    from .store import FeatureStore

    opened = FeatureStore(store)
    _say_untrained(opened)
    names = None if features is None else tuple(name.strip() for name in features.split(",") if name.strip())
    choice = Choice(chosen_trials(chosen["trials"], chosen["trials_from"]), names)
    folder = next(each for each in (out.absolute(), *out.absolute().parents) if each.exists())
    size, free = estimated_bytes(opened, to, choice), shutil.disk_usage(folder).free
    click.echo(f"about {in_words(size)} to write to {out}, {in_words(free)} free there", err=True)
    trials = export_store(opened, to, out, choice, overwrite)
    click.echo(f"{counted(trials, 'trial')} to {out}")


@click.command("import-h5")
@click.argument("file", required=False, type=FILE)
@click.option("--from", "source", type=FILE, help="The HDF5 file. [default: FILE]")
@click.option("--store", type=STORE, required=True, help="Folder (or URL) of the feature store; created if missing.")
@click.option("--replace", is_flag=True, help="Replace trials of the same name that differ. [default: off]")
@clean_errors()
def import_h5(file: Path | None, source: Path | None, store: str, replace: bool) -> None:
    """Bring an exported HDF5 FILE back into a store, bit for bit."""
    from .interchange.import_h5 import check_export
    from .interchange.import_h5 import import_h5 as bring_back
    from .store import FeatureStore

    path = source or file
    if path is None or (source and file):
        raise click.UsageError("name one HDF5 file, as FILE or with --from")
    check_export(path)  # before a store is made
    opened = FeatureStore(store, mode="a")
    done = bring_back(path, opened, replace)
    _say_untrained(opened)
    counts = [f"{counted(len(done.written), 'trial')} from {path}"]
    counts += [f"{len(done.replaced)} of them replaced"] if done.replaced else []
    counts += [f"{len(done.there)} left alone: there already, and the same"] if done.there else []
    click.echo("; ".join(counts))


@click.command()
@click.option("--feature", required=True, metavar="NAME", help="Feature to remove.")
@click.option("--store", type=STORE, required=True, help=_STORE_HELP)
@_with_trials
@click.option("--dry-run", is_flag=True, help="Show how many trials have it, and stop. [default: off]")
@clean_errors()
def remove(feature: str, store: str, dry_run: bool, **chosen: Any) -> None:
    """Take a feature out of a store; everything else stays as it is.

    A run that is extracting the same trials is waited for: it is refused, and names the trial.
    """
    from .records.remove import remove_feature
    from .store import FeatureStore

    opened = FeatureStore(store)  # a store that is not there is not made
    opened = opened if dry_run else FeatureStore(store, mode="a")
    done = remove_feature(opened, feature, chosen_trials(chosen["trials"], chosen["trials_from"]), dry_run)
    word = "would be taken" if dry_run else "taken"
    click.echo(f"{feature} {word} out of {counted(len(done), 'trial')} of {store}")


def _say_untrained(store: FeatureStore) -> None:
    from .records.status import untrained_features

    if line := untrained_line(untrained_features(store)):
        click.echo(line, err=True)
