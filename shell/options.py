"""What the options of all rooms share: paths, the store, lists, KEY=VALUE, `--config`, headings in `--help`.

Tested by tests/shell/test_settings_file.py and tests/fusion/test_defaults.py.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import click

from .settings_file import load_settings
from .text import key_and_value

Command = TypeVar("Command", bound=Callable[..., Any])


class LocalPath(click.Path[Path]):
    """A path, with `~` for the home folder wherever it comes from: `--out ~/runs`, `--out=~/runs`, a settings file."""

    def __init__(self, name: str, **kind: bool) -> None:
        super().__init__(path_type=Path, **kind)
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path with `~` expanded; an empty one, as an unset variable leaves it, is refused."""
        return super().convert(expand_home(os.fspath(value), self, param, ctx), param, ctx)


class StoreLocation(click.ParamType[str]):
    """Where a store is: a folder, with `~` for the home folder, or a URL."""

    name = "STORE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The location with `~` expanded."""
        return expand_home(str(value), self, param, ctx)


class NameList(click.ParamType[str]):
    """Names separated by commas; a settings file may give them as a list."""

    name = "LIST"


class NamedPath(click.ParamType[tuple[str, Path]]):
    """NAME=FILE; the file may be a folder."""

    name = "NAME=FILE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Path]:
        """Split at the first equals sign."""
        if isinstance(value, tuple):
            return value
        try:
            name, file = key_and_value(value, self.name)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return name, Path(expand_home(file, self, param, ctx))


class Number(click.FloatRange):
    """A number of a range; `nan`, which is in none, is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A number that can be compared."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not a number", param, ctx)
        return number


def expand_home(text: str, kind: click.ParamType[Any], param: click.Parameter | None, ctx: click.Context | None) -> str:
    """A path with `~` and `~user` expanded. Fails where it is empty, or where there is no home folder."""
    if not text.strip():
        kind.fail("an empty path", param, ctx)
    expanded = os.path.expanduser(text)
    if expanded.startswith("~") and expanded[1:2] in ("", "/"):
        kind.fail(f"{text}: this user has no home folder; set HOME, or give the whole path", param, ctx)
    return expanded


DEFAULT_STORE = "features.zarr"

FOLDER = LocalPath("DIR", file_okay=False)
FILE = LocalPath("FILE", dir_okay=False)
PATH = LocalPath("PATH")
STORE = StoreLocation()
NAME_LIST = NameList()

device_option = click.option(
    "--device", metavar="DEVICE", default="auto", show_default=True, help="auto, cpu or cuda[:N]."
)

store_option = click.option(
    "--store",
    type=STORE,
    help=f"Feature store: a folder or zarr store URL. [default: {DEFAULT_STORE} in the working folder]",
)

smooth_option = click.option(
    "--smooth",
    metavar="none|ma:K|savgol:K",
    default="none",
    show_default=True,
    help="Smooth predictions over K rows: moving average or Savitzky-Golay; K,L for valence and arousal.",
)
config_option = click.option(
    "--config",
    type=FILE,
    callback=load_settings,
    is_eager=True,
    expose_value=False,
    help="YAML file of these options; flags win, unknown keys are refused. [default: none]",
)


def store_or_default(store: str | None, option: str = "--store") -> str:
    """The store that is given, else the one in the working folder, which a line on stderr names.

    Raises ValueError where that one is not there, with the `option` to give.
    """
    if store is not None:
        return store
    if not os.path.exists(DEFAULT_STORE):
        raise ValueError(f"{DEFAULT_STORE} is not here; give {option}, or run `avfuse extract --videos DIR` first")
    click.echo(f"note: --store {DEFAULT_STORE}", err=True)
    return DEFAULT_STORE


class MergedOption(click.Option):
    """A repeatable KEY=VALUE option: what the command line gives is laid over what the settings file has."""

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, Any]:
        """The file's pairs first, so that the command line's win."""
        value, source = super().consume_value(ctx, opts)
        if source is click.core.ParameterSource.COMMANDLINE:
            value = (*(ctx.lookup_default(self.name) or ()), *value)
        return value, source


class GroupedCommand(click.Command):
    """A command whose `--help` lists its options under headings.

    `groups` maps a heading to its options' names (`batch-size`); those in no group come last, under "Other options".
    """

    def __init__(self, *args: Any, groups: Mapping[str, Sequence[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One section a heading."""
        records: dict[str, tuple[str, str]] = {}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                records[option_name(parameter)] = record
        for heading, names in self.groups.items():
            if rows := [records.pop(name) for name in names if name in records]:
                with formatter.section(heading):
                    formatter.write_dl(rows)
        if records:
            with formatter.section("Other options"):
                formatter.write_dl(list(records.values()))


def weights_option(of_what: str) -> Callable[[Any], Any]:
    """`--weights NAME=FILE`, repeatable; `of_what` begins its help."""
    help_text = f"{of_what} [default: $AVFUSE_WEIGHTS, then the cache]"
    return click.option("--weights", cls=MergedOption, type=NamedPath(), multiple=True, help=help_text)


def untrained_option(purpose: str) -> Callable[[Any], Any]:
    """`--untrained SEED`; `purpose` says what random weights are for, and the default."""
    help_text = f"Seeded random weights for every network without --weights; for {purpose}"
    return click.option("--untrained", type=click.IntRange(min=0), metavar="SEED", help=help_text)


encoder_option = click.option(
    "--encoder",
    cls=MergedOption,
    type=NamedPath(),
    multiple=True,
    help="An encoder of your own as a feature NAME (repeatable): a Python file, which is run. [default: none]",
)


def option_name(parameter: click.Parameter) -> str:
    """The long name of an option, without its dashes."""
    return max(parameter.opts, key=len).lstrip("-")


def with_options(command: Command, options: Iterable[Callable[[Any], Any]]) -> Command:
    """Give a command these options, listed in this order."""
    return reduce(lambda wrapped, option: option(wrapped), reversed(list(options)), command)


def trial_options(verb: str) -> tuple[Callable[[Any], Any], ...]:
    """--trials and --trials-from: which trials to `verb`."""
    return (
        click.option(
            "--trials", type=NAME_LIST, help=f"Names of the trials to {verb}, separated by commas. [default: all]"
        ),
        click.option(
            "--trials-from",
            type=FILE,
            help=f"Text file that names the trials to {verb}, one per line. [default: none]",
        ),
    )


def chosen_trials(trials: str | None, trials_from: Path | None) -> tuple[str, ...] | None:
    """The trials of both options; None: neither is given, so all. Raises OSError, ValueError where none is named."""
    if trials is None and trials_from is None:
        return None
    lines = trials_from.read_text(encoding="utf-8-sig").splitlines() if trials_from else []
    names = [*(trials or "").split(","), *lines]
    chosen = tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
    if not chosen:
        raise ValueError(f"{trials_from or '--trials'} names no trial")
    return chosen
