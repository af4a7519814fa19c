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
