"""`avfuse status`, `verify`, `export`, `import-h5`, `-features`, `-abaw3`: parse, call, print, exit code."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..shell.errors import clean_errors
from ..shell.options import (
    FILE,
    FOLDER,
    NAME_LIST,
    PATH,
    STORE,
    GroupedCommand,
    Number,
    chosen_trials,
    config_option,
    store_option,
    store_or_default,
    trial_options,
    with_options,
)
from ..shell.text import counted, escaped, flat, in_words, preview, untrained_line

if TYPE_CHECKING:
    from .store import FeatureStore


EXIT_PROBLEMS = 3
EXPORTS = ("h5", "matlab", "npy", "parquet", "csv", "datasets", "webdataset")
_export_trials = partial(with_options, options=trial_options("export"))
_import_trials = partial(with_options, options=trial_options("import"))
_remove_trials = partial(with_options, options=trial_options("take it out of"))


@click.command()
@store_option
@click.option(
    "--trials",
    "each",
    is_flag=True,
    help="One line per trial: rows, faces, sound, gaps, and each feature: done, missing … [default: off]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object [default: text].")
@clean_errors()
def status(store: str | None, each: bool, as_json: bool) -> None:
    """Show what is done, unfinished and failed in a store, and the warnings."""
    import json
    from dataclasses import asdict

    from .records.status import status_lines, summarise, trial_states, trial_table
    from .store import FeatureStore

    opened = FeatureStore(store_or_default(store))
    summary = summarise(opened)
    states = trial_states(opened, summary["features"]) if each else []
    if as_json:
        click.echo(json.dumps({**summary, **({"by_trial": [asdict(state) for state in states]} if each else {})}))
    else:
        click.echo("\n".join([*trial_table(states), *status_lines(summary, all_warnings=each)]))


@click.command()
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object [default: one line per problem].")
@click.pass_context
@clean_errors()
def verify(context: click.Context, store: str | None, as_json: bool) -> None:
    """Read every chunk again and check every checksum; exit code 3 if something is broken, with how to fix it."""
    import json
    from dataclasses import asdict

    from .records.verify import fix_commands
    from .records.verify import verify as find_problems
    from .store import FeatureStore

    opened = FeatureStore(store_or_default(store))
    _say_untrained(opened)
    problems = []
    for problem in find_problems(opened):
        problems.append(asdict(problem))
        if not as_json:
            click.echo(str(problem))
    trials = len(opened)
    fix = fix_commands(opened, [problem["trial"] for problem in problems]) if problems else []
    if as_json:
        click.echo(json.dumps({"store": opened.path, "trials": trials, "problems": problems, "fix": fix}))
    elif not problems:
        click.echo(f"{counted(trials, 'trial')}, every chunk read, every checksum right")
    else:
        unknown = ", with your folders instead of …" if any("…" in command for command in fix) else ""
        click.echo("\n".join([f"how to fix{unknown}:", *(f"  {command}" for command in fix)]), err=True)
    if problems:
        context.exit(EXIT_PROBLEMS)


@click.command()
@store_option
@click.option("--to", "to", required=True, type=click.Choice(EXPORTS), help="Format: docs/interop.md.")
@click.option("--out", required=True, type=PATH, help="File to write for h5 and matlab, folder for the others.")
@click.option(
    "--features", type=NAME_LIST, help="Features to export, separated by commas, besides the times. [default: all]"
)
@click.option("--overwrite", is_flag=True, help="Replace existing files. [default: off]")
@click.option(
    "--sample-rows",
    type=click.IntRange(min=1),
    metavar="N",
    default=300,
    show_default=True,
    help="For webdataset: rows of a trial that make a sample.",
)
@_export_trials
@clean_errors()
def export(
    store: str | None,
    to: str,
    out: Path,
    features: str | None,
    overwrite: bool,
    sample_rows: int,
    trials: str | None,
    trials_from: Path | None,
) -> None:
    """Write a store, or some of its trials and features, in another format."""
    import shutil

    from .interchange.export import Choice, estimated_bytes, export_store
    from .store import FeatureStore

    opened = FeatureStore(store_or_default(store))
    _say_untrained(opened)
    names = None if features is None else tuple(name.strip() for name in features.split(",") if name.strip())
    choice = Choice(chosen_trials(trials, trials_from), names, sample_rows)
    folder = next(each for each in (out.absolute(), *out.absolute().parents) if each.exists())
    size, free = estimated_bytes(opened, to, choice), shutil.disk_usage(folder).free
    click.echo(f"about {in_words(size)} to write to {out}, {in_words(free)} free there", err=True)
    written = export_store(opened, to, out, choice, overwrite)
    click.echo(f"{counted(written, 'trial')} to {out}")


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


@click.command(
    "import-features",
    cls=GroupedCommand,
    groups={
        "What and where": ("name", "from", "store"),
        "Onto the frames": ("resample", "tolerance", "rate", "start-s", "nan"),
        "Which trials": ("trials", "trials-from", "allow-missing", "ignore-unknown", "replace"),
    },
)
@click.option(
    "--name", required=True, metavar="NAME", help="Name of the feature in the store, as --modalities will have it."
)
@click.option("--from", "folder", required=True, type=FOLDER, help="Folder of files, one per trial: TRIAL.npy …")
@store_option
@click.option(
    "--resample",
    type=click.Choice(["linear", "nearest", "mean"]),
    default="linear",
    show_default=True,
    help="How rows with times are put on the frames: between the two neighbours, the nearest one, or the mean of those "
    "from one frame to the next.",
)
@click.option(
    "--tolerance",
    "tolerance_rows",
    type=click.IntRange(min=0),
    metavar="N",
    default=5,
    show_default=True,
    help="Rows by which a file without times may miss the trial's length: cut, or the last one repeated.",
)
@click.option(
    "--rate",
    "rate_hz",
    type=Number(min=0, min_open=True),
    metavar="X",
    help="Rows a second of files without times, Hz. [default: one row per frame]",
)
@click.option("--start-s", type=float, metavar="S", help="With --rate: time of the first row, s. [default: 0]")
@click.option(
    "--nan",
    type=click.Choice(["refuse", "invalid"]),
    default="refuse",
    show_default=True,
    help="What becomes of rows with NaN or infinity: an error, or marked as not valid, holding the row before.",
)
@_import_trials
@click.option("--allow-missing", is_flag=True, help="Leave trials without a file as they are. [default: an error]")
@click.option("--ignore-unknown", is_flag=True, help="Leave out files that belong to no trial. [default: an error]")
@click.option("--replace", is_flag=True, help="Replace other rows of that name. [default: off]")
@click.option(
    "--dry-run", is_flag=True, help="Examine every file, say what would be done, write nothing. [default: off]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object [default: text].")
@config_option
@clean_errors()
def import_features(
    store: str | None,
    rate_hz: float | None,
    start_s: float | None,
    trials: str | None,
    trials_from: Path | None,
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Bring features made elsewhere into a store, beside its own: they train, export and verify like any other.

    One file per trial, called as the trial is, in the same subfolders: .npy, .npz, .h5, .csv or .parquet, never pickle.
    Without times there is one row per frame; with times (`time`, in s) rows are resampled onto those of the frames.
    Every file is examined before anything is written.
    """
    import json
    from dataclasses import asdict

    from ..shell.progress import shown
    from .interchange.import_features import ImportRequest
    from .interchange.import_features import import_features as bring_in
    from .store import FeatureStore

    store = store_or_default(store)
    if start_s is not None and rate_hz is None:
        raise click.UsageError("--start-s is the time of the first row at --rate, which is not given")
    chosen = chosen_trials(trials, trials_from)
    request = ImportRequest(**given, rate_hz=rate_hz, start_s=start_s or 0.0, trials=chosen)
    opened = FeatureStore(store)  # a mistyped path is an error, not a new store
    done = bring_in(opened if dry_run else opened.writable(), request, shown, dry_run=dry_run)
    for note in done.notes:
        click.echo(flat(f"note: {note}"), err=True)
    if as_json:
        click.echo(json.dumps({"store": store, "name": request.name, "dry_run": dry_run, **asdict(done)}))
        return
    would = "would be " if dry_run else ""
    counts = [f"{request.name} of {counted(len(done.written), 'trial')} {would}imported from {request.folder}"]
    counts[0] += f" ({counted(done.rows, 'row')}, {done.invalid_rows} of them not valid)" if done.written else ""
    counts += [f"{len(done.replaced)} of them {would}replaced"] if done.replaced else []
    counts += [f"{len(done.there)} left alone: there already, from the same file"] if done.there else []
    counts += [f"{counted(len(done.missing), 'trial')} without a file: {preview(done.missing)}"] if done.missing else []
    counts += [f"{counted(len(done.unknown), 'file')} of no trial: {preview(done.unknown)}"] if done.unknown else []
    click.echo(flat("; ".join(counts)))


@click.command("import-abaw3")
@click.argument("folder", type=FOLDER)
@click.option("--store", type=STORE, help="Store to import into; made if missing. [default: nothing is imported]")
@click.option(
    "--check-against",
    type=STORE,
    help="Store of the same videos, made by `extract`: name what is shifted, with the evidence. [default: no check]",
)
@click.option(
    "--annotations",
    type=FOLDER,
    help="Labels of the trials: rows are those of the frames that have one. [default: one row per frame]",
)
@click.option(
    "--rate",
    "rate_hz",
    type=Number(min=0, min_open=True),
    metavar="X",
    default=30.0,
    show_default=True,
    help="Frames a second of trials that --store does not have yet, Hz.",
)
@click.option("--fix", is_flag=True, help="Put rows at the frames where --check-against finds them. [default: off]")
@click.option("--replace", is_flag=True, help="Replace other rows of the same names. [default: off]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object [default: text].")
@clean_errors()
def import_abaw3(
    folder: Path,
    store: str | None,
    check_against: str | None,
    annotations: Path | None,
    rate_hz: float,
    fix: bool,
    replace: bool,
    as_json: bool,
) -> None:
    """Bring a FOLDER of ABAW3's preprocessing (compacted_48) into a store, and find what is shifted in it.

    Its arrays become features `abaw3_video`, `abaw3_vggish` … beside those that are there. Pickles are never read.
    Exit codes: 0 nothing is known to be shifted; 1 could not start; 2 wrong usage; 3 something is, and was not fixed.
    """
    import json
    import os
    from dataclasses import asdict

    from ..shell.progress import shown
    from .interchange.abaw3_check import check_abaw3, finding_lines
    from .interchange.import_abaw3 import find_trials
    from .interchange.import_abaw3 import import_abaw3 as bring_in
    from .labels.corpus import open_corpus
    from .records.provenance import Inputs, record_inputs
    from .store import FeatureStore

    if store is None and check_against is None:
        raise click.UsageError("name --store, --check-against or both")
    if fix and (store is None or check_against is None):
        raise click.UsageError("--fix needs --store and --check-against")
    trials = find_trials(folder)
    corpus = None if annotations is None else open_corpus(annotations)
    checked = None if check_against is None else check_abaw3(trials, FeatureStore(check_against), corpus, shown)
    findings, notes = checked or ([], [])
    fixable = {(each.trial, each.array): each.frames for each in findings if each.frames is not None}
    moved = fixable if fix else {}
    done = None
    if store is not None:
        opened = FeatureStore(store, mode="a")
        done = bring_in(opened, trials, corpus, rate_hz, moved, replace, shown)
        notes += [note for note in done.notes if note not in notes]
        if annotations is not None:
            record_inputs(opened.files, Inputs(annotations=os.path.abspath(annotations)))
    for note in notes:
        click.echo(flat(f"note: {note}"), err=True)
    known = ("in step", "unclear")
    off = [each for each in findings if each.verdict not in known and (each.trial, each.array) not in moved]
    if as_json:
        found = [each.as_json() for each in findings]
        click.echo(
            json.dumps({"trials": len(trials), "findings": found, "imported": None if done is None else asdict(done)})
        )
    else:
        lines = finding_lines(findings) if findings else []
        if done is not None:
            made = f" ({counted(len(done.made), 'trial')} made)" if done.made else ""
            lines.append(f"{', '.join(done.features)} of {counted(len(trials), 'trial')} in {store}{made}")
        lines += [f"{counted(len(moved), 'array')} put at the frames that they belong to"] if moved else []
        click.echo("\n".join(map(escaped, lines)))
    if off:
        click.get_current_context().exit(EXIT_PROBLEMS)


@click.command()
@click.option("--feature", required=True, metavar="NAME", help="Feature to remove.")
@click.option("--store", type=STORE, required=True, help="Folder (or URL) of the feature store.")
@_remove_trials
@click.option("--dry-run", is_flag=True, help="Show how many trials have it, and stop. [default: off]")
@clean_errors()
def remove(feature: str, store: str | None, trials: str | None, trials_from: Path | None, dry_run: bool) -> None:
    """Take a feature out of a store; everything else stays as it is.

    It stops at a trial that another run is processing, and names it: what was taken out by then stays out. Run it again
    when that run has ended.
    """
    from .records.remove import remove_feature
    from .store import FeatureStore

    store = store_or_default(store)
    opened = FeatureStore(store)  # a store that is not there is not made
    opened = opened if dry_run else opened.writable()
    done = remove_feature(opened, feature, chosen_trials(trials, trials_from), dry_run)
    word = "would be taken" if dry_run else "taken"
    click.echo(f"{feature} {word} out of {counted(len(done), 'trial')} of {store}")


def _say_untrained(store: FeatureStore) -> None:
    from .records.status import untrained_features

    if line := untrained_line(untrained_features(store)):
        click.echo(line, err=True)
