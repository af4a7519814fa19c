"""`KEY=VALUE` and JSON to settings: typed by the field they name; unknown keys are refused with the nearest one.

Tested by tests/fusion/test_settings.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..features_store.schema import JsonValue
from ..shell.text import did_you_mean
from .config import PRESETS, ModelSettings, TrainConfig

_SWITCHES = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def preset(name: str) -> TrainConfig:
    """Settings of a preset. Raises ValueError on a name that is none."""
    if name not in PRESETS:
        raise ValueError(f"preset {name!r} is none of {', '.join(PRESETS)}{did_you_mean(name, PRESETS)}")
    return PRESETS[name]


def with_settings(config: TrainConfig, told: Mapping[str, str]) -> TrainConfig:
    """Settings changed by `{key: text}`, of the run or of its network. Raises ValueError on key or value."""
    own, model = _settings_of(config), _settings_of(config.model)
    for key in told:
        if key not in own | model:
            raise ValueError(
                f"there is no setting {key!r}{did_you_mean(key, own | model)}; there are {', '.join(own | model)}"
            )
    values = {key: _read(key, text, (own | model)[key]) for key, text in told.items()}
    changed = replace(config.model, **{key: value for key, value in values.items() if key in model})
    return replace(config, model=changed, **{key: value for key, value in values.items() if key in own})


def as_json(config: TrainConfig) -> dict[str, JsonValue]:
    """Settings as they stand in config.json."""
    found: dict[str, JsonValue] = _plain(asdict(config))
    return found


def from_json(found: Mapping[str, Any]) -> TrainConfig:
    """Settings out of config.json. Raises ValueError where they are not those of this avfuse."""
    base = preset(str(found.get("preset")))
    own, model = {**found}, found.get("model")
    own.pop("model", None)
    if not isinstance(model, dict) or set(own) - {"preset"} != set(_settings_of(base)):
        raise ValueError("its settings are those of another avfuse")
    told = {key: spelled(value) for key, value in {**own, **model}.items() if key != "preset"}
    return with_settings(base, told)


def differences(one: TrainConfig, other: TrainConfig) -> list[str]:
    """What differs, as `key: <one> in the run, <other> now`."""
    first, second = ({**asdict(each), **asdict(each.model)} for each in (one, other))
    names = [name for name in first | second if name != "model"]
    return [
        f"{name}: {spelled(first.get(name))} in the run, {spelled(second.get(name))} now"
        for name in names
        if first.get(name) != second.get(name)
    ]


def spelled(value: Any) -> str:
    """A value as it is written in `--set`; one that is not there is `none`."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _settings_of(settings: TrainConfig | ModelSettings) -> dict[str, Any]:
    hints = get_type_hints(type(settings))
    return {each.name: hints[each.name] for each in fields(settings) if each.name not in ("preset", "model")}


def _read(key: str, text: str, kind: Any) -> Any:
    try:
        return _reader(kind)(text.strip())
    except (ValueError, KeyError):
        raise ValueError(f"{key}={text}: {key} is {_told(kind)}") from None


def _reader(kind: Any) -> Callable[[str], Any]:
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        return lambda text: tuple(item(part.strip()) for part in text.strip("[]()").split(",") if part.strip())
    if get_origin(kind) is Literal:
        return lambda text: {word: word for word in get_args(kind)}[text]
    if kind is bool:
        return lambda text: _SWITCHES[text.lower()]
    readers: dict[Any, Callable[[str], Any]] = {int: int, float: _finite}
    return readers.get(kind, str)


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(text)
    return value


def _told(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false"}
    if get_origin(kind) is tuple:
        return "numbers parted by commas" if get_args(kind)[0] is int else "names parted by commas"
    return names.get(kind) or f"one of {', '.join(get_args(kind))}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return list(value) if isinstance(value, tuple) else value
