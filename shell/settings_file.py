"""Options from a YAML file: the same names as on the command line, where flags win.

A value is read as the text in the file, as if it had been typed on the command line: `walltime: 02:00:00`
is not a number of seconds, `out: 2026` is a folder. Lists and maps belong to the options that take several values.

Tested by tests/shell/test_settings_file.py.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .text import did_you_mean, flat, one_line

if TYPE_CHECKING:
    import yaml


_DEPTH = 8
_PLAIN = re.compile(r"[\w.+][\w.+-]*")  # needs no quotes inside a list
_NULL, _BOOL = "tag:yaml.org,2002:null", "tag:yaml.org,2002:bool"


class _FileError(ValueError):
    """What is wrong with the file, and at which line."""

    def __init__(self, node: yaml.Node, what: str) -> None:
        super().__init__(f"line {node.start_mark.line + 1}: {what}")


def load_settings(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Make the file's values the command's defaults; None without a file.

    Raises click.BadParameter, with the line of what is wrong.
    """
    if path is None:
        return None
    import yaml

    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        values = {} if root is None or _is_empty(root) else _values(context, root)
    except OSError as error:
        raise click.BadParameter(one_line(error), context, parameter) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise click.BadParameter(flat(f"{path} cannot be read as YAML: {error}"), context, parameter) from error
    except _FileError as error:
        raise click.BadParameter(f"{path}, {error}", context, parameter) from error
    context.default_map = {**(context.default_map or {}), **values}
    return path


def _values(context: click.Context, root: yaml.Node) -> dict[str, str | list[str]]:
    """Parameter and value for every line that has one."""
    known = {
        option.removeprefix("--"): parameter
        for parameter in context.command.params
        for option in parameter.opts
        if parameter.name != "config"
    }
    lines = [
        (str(key.value).replace("_", "-"), key, node)
        for key, node in _pairs(root, "the file must hold `option: value` lines")
    ]
    if unknown := [(option, key) for option, key, _ in lines if option not in known]:
        names = ", ".join(sorted(key.value for _, key in unknown))
        what = f"unknown {'key' if len(unknown) == 1 else 'keys'}: {names}{did_you_mean(unknown[0][0], known)}"
        raise _FileError(unknown[0][1], what)
    values: dict[str, str | list[str]] = {}
    for option, key, node in lines:
        if _is_empty(node):
            continue
        value = _spelled(known[option], key.value, node)
        try:
            known[option].type_cast_value(context, value)
        except click.BadParameter as error:
            raise _FileError(key, f"{key.value}: {error.message}") from error
        values[str(known[option].name)] = value
    return values


def _spelled(parameter: click.Parameter, key: str, node: yaml.Node) -> str | list[str]:
    """The value in the spelling of the flag; one text a repetition where the option is repeatable."""
    shape = parameter.metavar or parameter.type.name.upper()
    repeatable = isinstance(parameter, click.Option) and parameter.multiple
    if not repeatable and "LIST" not in shape:
        if node.tag == _BOOL and not (isinstance(parameter, click.Option) and parameter.is_flag):
            raise _FileError(node, f"{key} takes {shape}, not {node.value}")
        return _text(node, f"{key} takes one value")
    items = [item for item in node.value if not _is_empty(item)] if _kind(node) == "sequence" else [node]
    if "=" not in shape:
        texts = [_text(item, f"{key} takes one value, or a list of them") for item in items]
        return texts if repeatable else ",".join(texts)
    # A map, or a list of maps and of `name=value`.
    pairs: dict[str, str] = {}
    for item in items:
        found: list[tuple[yaml.Node, str, str]]
        if _kind(item) == "mapping":
            found = [
                (name, name.value, f"{name.value}={_flow(value, top=True)}")
                for name, value in _pairs(item, key)
                if not _is_empty(value)
            ]
        else:
            text = _text(item, f"{key} takes `name: value` lines")
            name, sign, value = text.partition("=")
            found = [(item, name.strip(), f"{name.strip()}{sign}{value}")]
        for line, name, pair in found:
            if name in pairs:
                raise _FileError(line, f"{key}: {name} is given twice")
            pairs[name] = pair
    return list(pairs.values())


def _flow(node: yaml.Node, *, top: bool = False, depth: int = 0) -> str:
    """A value on one line: lists and maps in YAML's own flow style, which the option reads again."""
    if depth > _DEPTH:
        raise _FileError(node, "lists and maps are nested too deeply")
    if _kind(node) == "sequence":
        return f"[{', '.join(_flow(item, depth=depth + 1) for item in node.value)}]"
    if _kind(node) == "mapping":
        pairs = (f"{key.value}: {_flow(value, depth=depth + 1)}" for key, value in _pairs(node, ""))
        return f"{{{', '.join(pairs)}}}"
    return str(node.value) if top or _PLAIN.fullmatch(node.value) else json.dumps(node.value)


def _pairs(node: yaml.Node, what: str) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    """Keys and values of a map. Raises _FileError where it is another kind of node, or has a key twice."""
    if _kind(node) != "mapping":
        raise _FileError(node, what)
    seen: dict[str, int] = {}
    for key, _ in node.value:
        name = _text(key, "a key is one word").replace("_", "-")
        if name in seen:
            raise _FileError(key, f"{key.value} is given twice, first in line {seen[name]}")
        seen[name] = key.start_mark.line + 1
    return list(node.value)


def _text(node: yaml.Node, what: str) -> str:
    if _kind(node) != "scalar":
        raise _FileError(node, what)
    return str(node.value)


def _kind(node: yaml.Node) -> str:
    """`scalar`, `sequence` or `mapping`."""
    return str(getattr(node, "id", ""))


def _is_empty(node: yaml.Node) -> bool:
    """`key:`, `key: null`, and a list or a map with nothing in it: as if the line were not there."""
    return node.tag == _NULL or (_kind(node) != "scalar" and not node.value)
