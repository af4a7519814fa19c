"""`avfuse encoder`: which encoders there are, what each needs, and whether one does what it declares."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import click

from ..shell.errors import clean_errors
from ..shell.options import PATH, device_option, encoder_option
from ..shell.text import text_table
from .contract import Precision, lacking, pip_command
from .plugins import encoder_file, installed, use_files
from .table import FEATURES, TABLE, Feature, feature, module_of
from .weights.registry import FOLDERS
from .weights.resolve import WeightsInvalid, WeightsMissing, form_of, resolve


@click.group()
def encoder() -> None:
    """Encoders: which there are, what each of them needs, and whether one does what it declares."""


@encoder.command("list")
@encoder_option
@click.option("--json", "as_json", is_flag=True, help="One JSON list on stdout. [default: off]")
@clean_errors()
def list_encoders(encoder: tuple[tuple[str, Path], ...], as_json: bool) -> None:
    """Every encoder: stream, numbers per row, licence of what makes it, and what is missing to use it."""
    use_files(encoder_file(name, path) for name, path in dict(encoder).items())
    names = [name for name in FEATURES if TABLE[name].network or TABLE[name].load]
    names += ["timm:NAME", "hear:MODULE", *installed(), *dict(encoder)]
    found = [_described(name) for name in names]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    cells = [("name", "stream", "dim", "weights", "missing", "licence")]
    for each in found:
        dim = "as its network" if each["dim"] is None else "x".join(map(str, each["dim"]))
        missing = each["error"] or each["install"] or "-"
        cells.append((each["name"], each["stream"], dim, each["weights"], missing, each["licence"]))
    click.echo("\n".join(text_table(cells, words=len(cells[0]))))
    click.echo("\nweights: avfuse weights list; an encoder of your own: docs/own-encoder.md")


def _described(name: str) -> dict[str, Any]:
    """A line of the list; an encoder that cannot be asked says why."""
    found: dict[str, Any] = {"name": name, "stream": "?", "dim": None, "weights": "?", "licence": "?"}
    found |= {"needs": [], "install": "", "error": ""}
    try:
        made: Feature = feature(name)
        found |= {"stream": made.stream, "dim": made.row_shape, "weights": _weights(made)}
        if made.load is None:
            return {**found, "licence": "of its weights"}
        _, said = module_of(made)
    except (ValueError, ImportError) as error:
        return {**found, "error": str(error)}
    missing = lacking(said.needs)
    install = pip_command(missing, said.kind) if missing else ""
    licence = FOLDERS[name].licence if name in FOLDERS else said.licence  # a family's name is for many weights
    return {**found, "licence": licence, "needs": list(said.needs), "install": install}


def _weights(made: Feature) -> str:
    """Whether what a feature needs is here, in a word."""
    form = form_of(made.network) if made.network else None
    if form in (None, "optional"):
        return "none" if form is None else "optional"
    if made.name.endswith(":NAME"):
        return str(form)
    try:
        resolve([made.network or ""], {}, None)
    except WeightsMissing:
        return f"{form}, not here"
    except WeightsInvalid:
        return f"{form}, damaged"
    return f"{form}, here"


@encoder.command()
@click.argument("name")
@encoder_option
@click.option("--weights", type=PATH, help="Its weights: a folder, or a file. [default: $AVFUSE_WEIGHTS, the cache]")
@click.option(
    "--untrained",
    type=click.IntRange(min=0),
    metavar="SEED",
    help="Seeded random weights, where it can draw some. [default: off]",
)
@click.option("--layers", metavar="LAYERS", default="last4", show_default=True, help="As extract has it.")
@device_option
@click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    default="fp32",
    show_default=True,
    help="Number format of the network.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON list on stdout. [default: off]")
@clean_errors(WeightsMissing)
def check(
    name: str,
    encoder: tuple[tuple[str, Path], ...],
    weights: Path | None,
    untrained: int | None,
    layers: str,
    device: str,
    precision: Precision,
    as_json: bool,
) -> None:
    """Whether the encoder NAME does what it declares: shapes, types, equal answers, and of sound times and context.

    A line for each thing looked at. Exit code 1 where one fails.
    """
    from functools import partial

    from .check import check_encoder
    from .engine import choose_device, whole_float32
    from .loading import load_encoder

    use_files(encoder_file(each, path) for each, path in dict(encoder).items())
    made = feature(name)
    if made.load is None:
        raise ValueError(f"{name} is not an encoder from a module: avfuse encoder list names those")
    given = {name: Path(str(weights).removeprefix(f"{name}="))} if weights else {}  # as extract takes them, or bare
    source = resolve([name], given, untrained).get(name) if made.network or given else None
    settings = {"layers": layers, "precision": precision}
    load = partial(load_encoder, name, settings, source, choose_device(device))
    found = []
    with whole_float32(precision):
        for each in check_encoder(partial(load, precision), None if precision == "fp32" else partial(load, "fp32")):
            found.append(each)
            if not as_json:
                click.echo(f"{each.word:8}{each.what:38}{each.found}")
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=2))
    sys.exit(int(any(each.word == "FAILED" for each in found)))
