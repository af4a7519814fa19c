"""Options from a YAML file: the same names as on the command line, where flags win."""

from __future__ import annotations

from pathlib import Path

import click


def load_settings(context: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """Make the file's values the command's defaults; unknown keys are refused (exit 2, naming them)."""
    if path is None:
        return None
    import yaml

    try:
        settings = yaml.safe_load(path.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise click.BadParameter(f"{path} is no readable YAML: {error}") from error
    if not isinstance(settings, dict):
        raise click.BadParameter(f"{path} must hold `option: value` lines")
    known = {
        option.removeprefix("--"): parameter
        for parameter in context.command.params
        for option in parameter.opts
        if parameter.name != "config"
    }
    unknown = sorted(str(key) for key in settings if _option(key) not in known)
    if unknown:
        raise click.BadParameter(f"{path} has unknown keys: {', '.join(unknown)}")
    given = {known[_option(key)]: value for key, value in settings.items()}
    told = {parameter.name: _as_flag(parameter, value) for parameter, value in given.items()}
    context.default_map = {**(context.default_map or {}), **told}
    return path


def _option(key: object) -> str:
    return str(key).replace("_", "-")


def _as_flag(parameter: click.Parameter, value: object) -> object:
    """YAML lists and maps in the spelling of the flags: `a,b`, or one value a repetition."""
    if isinstance(value, dict):
        value = [f"{key}={item}" for key, item in value.items()]
    if isinstance(parameter, click.Option) and parameter.multiple:
        return value if isinstance(value, list) else [value]
    return ",".join(str(item) for item in value) if isinstance(value, list) else value
