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
    known = {parameter.name: parameter for parameter in context.command.params if parameter.name != "config"}
    values = {str(key).replace("-", "_"): value for key, value in settings.items()}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise click.BadParameter(f"{path} has unknown keys: {', '.join(unknown)}")
    context.default_map = {
        **(context.default_map or {}),
        **{key: _text(value) for key, value in values.items()},
    }
    return path


def _text(value: object) -> object:
    """YAML lists and maps in the spelling of the flags."""
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    if isinstance(value, dict):
        return [f"{key}={item}" for key, item in value.items()]
    return value
