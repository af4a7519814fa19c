"""What every room's options share: `--config`, and giving a command a table of options."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import click

from .settings_file import load_settings

Command = TypeVar("Command", bound=Callable[..., Any])
FOLDER = click.Path(path_type=Path, file_okay=False)

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=load_settings,
    is_eager=True,
    expose_value=False,
    help="YAML file of these options; flags win, unknown keys are refused. [default: none]",
)


def with_options(command: Command, options: Iterable[Callable[[Any], Any]]) -> Command:
    """Give a command these options, listed in this order."""
    return reduce(lambda wrapped, option: option(wrapped), reversed(list(options)), command)


def trial_options(verb: str) -> tuple[Callable[[Any], Any], ...]:
    """--trials and --trials-from: which trials to `verb`."""
    return (
        click.option("--trials", metavar="LIST", help=f"Names of the trials to {verb}, by commas. [default: all]"),
        click.option(
            "--trials-from",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help=f"Text file that names the trials to {verb}, one a line. [default: none]",
        ),
    )


def chosen_trials(trials: str | None, trials_from: Path | None) -> tuple[str, ...] | None:
    """The trials of both options; None: neither is given, so all. Raises OSError, ValueError where none is named."""
    if trials is None and trials_from is None:
        return None
    lines = trials_from.read_text(encoding="utf-8").splitlines() if trials_from else []
    names = [*(trials or "").split(","), *lines]
    chosen = tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
    if not chosen:
        raise ValueError(f"{trials_from or '--trials'} names no trial")
    return chosen
