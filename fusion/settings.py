"""`KEY=VALUE` and JSON to settings: typed by the field they name; unknown keys are refused with the nearest one.

Tested by tests/fusion/test_settings.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..features_store.schema import JsonValue
from ..shell.text import did_you_mean
from .config import FinetuneConfig, HeadSettings, PictureConfig, TrainConfig
from .models.table import HEADS, head_settings
from .tasks.table import TASKS

# Settings that the first runs did not know.
_YOUNGER = {
    *("loss", "focal_gamma", "label_smoothing", "label_smoothing_frames", "class_weights", "protocol"),
    *("audio_rows", "speech_threshold"),
}
_SWITCHES = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def preset(name: str) -> TrainConfig:
    """Settings of a preset. Raises ValueError on an unknown name."""
    if name not in HEADS:
        raise ValueError(f"preset {name!r} is not one of {', '.join(HEADS)}{did_you_mean(name, HEADS)}")
    return TrainConfig(preset=name, model=head_settings(name), **HEADS[name].training)


def with_settings(config: TrainConfig, changes: Mapping[str, str]) -> TrainConfig:
    """Settings changed by `{key: text}`, of the run or of its network. Raises ValueError on a wrong key or value."""
    own, model = _settings_of(config), _settings_of(config.model)
    tuning = {} if config.finetune is None else _settings_of(config.finetune)
    every = own | model | tuning
    for key in changes:
        if key not in every:
            raise ValueError(f"there is no setting {key!r}{did_you_mean(key, every)}; there are {', '.join(every)}")
    values = {key: _read(key, text, every[key]) for key, text in changes.items()}
    parts: dict[str, Any] = {
        "model": replace(config.model, **{key: value for key, value in values.items() if key in model})
    }
    if config.finetune is not None:
        parts["finetune"] = replace(config.finetune, **{key: value for key, value in values.items() if key in tuning})
    return replace(config, **parts, **{key: value for key, value in values.items() if key in own})


def picture_settings(changes: Mapping[str, str]) -> PictureConfig:
    """Settings of a run on pictures, changed by `{key: text}`. Raises ValueError on a wrong key or value."""
    every = get_type_hints(PictureConfig)
    for key in changes:
        if key not in every:
            raise ValueError(f"there is no setting {key!r}{did_you_mean(key, every)}; there are {', '.join(every)}")
    return PictureConfig(**{key: _read(key, text, every[key]) for key, text in changes.items()})


def names_of(config: TrainConfig) -> set[str]:
    """Names of the settings that these have, of the run and of its network."""
    tuning = {} if config.finetune is None else _settings_of(config.finetune)
    return {*_settings_of(config), *_settings_of(config.model), *tuning}


def as_json(config: TrainConfig) -> dict[str, JsonValue]:
    """Settings as config.json has them: tuples are lists; `finetune` only where backbones are tuned."""
    content: dict[str, JsonValue] = json.loads(json.dumps(asdict(config)))
    if config.finetune is None:
        del content["finetune"]
    return content


def from_json(content: Mapping[str, Any]) -> TrainConfig:
    """Settings out of config.json; those that are younger than the run have their defaults, as they then had no say.

    Raises ValueError if they are not those of this avfuse.
    """
    base = preset(str(content.get("preset")))
    own, model = {**content}, content.get("model")
    own.pop("model", None)
    if isinstance(tuning := own.pop("finetune", None), dict):
        try:
            tuned = FinetuneConfig(**{**tuning, "weights": tuple(tuning["weights"])})
            base = replace(base, modalities=tuple(own["modalities"]), finetune=tuned)
        except (KeyError, TypeError) as error:
            raise ValueError("its settings are those of another avfuse") from error
    known, named = set(_settings_of(base)), set(own) - {"preset"}
    if not isinstance(model, dict) or not known - _YOUNGER <= named <= known:
        raise ValueError("its settings are those of another avfuse")
    return with_settings(base, {key: spelled(value) for key, value in {**own, **model}.items() if key != "preset"})


def differences(one: TrainConfig, other: TrainConfig) -> list[str]:
    """What differs, as `key: <one> in the run, <other> now`."""
    first, second = (
        {**asdict(each), **asdict(each.model), **({} if each.finetune is None else asdict(each.finetune))}
        for each in (one, other)
    )
    names = [name for name in first | second if name not in ("model", "finetune")]
    return [
        f"{name}: {spelled(first.get(name))} in the run, {spelled(second.get(name))} now"
        for name in names
        if first.get(name) != second.get(name)
    ]


def spelled(value: Any) -> str:
    """A value as it is written in `--set`; a missing one is `none`."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _settings_of(settings: TrainConfig | HeadSettings | FinetuneConfig) -> dict[str, Any]:
    """{name: type} of the fields that `--set` may change."""
    others = ("preset", "model", "finetune", *(["weights"] if isinstance(settings, FinetuneConfig) else []))
    choices: Any = Literal
    hints = {**get_type_hints(type(settings)), "task": choices[tuple(TASKS)]}
    return {each.name: hints[each.name] for each in fields(settings) if each.name not in others}


def _read(key: str, text: str, kind: Any) -> Any:
    """The text of a setting as a value of its field's type. Raises ValueError saying what it must be."""
    word, expected = text.strip(), ""
    try:
        if get_origin(kind) is tuple:
            item = get_args(kind)[0]
            expected = f"{'numbers' if item is int else 'names'} separated by commas"
            return tuple(item(part.strip()) for part in word.strip("[]()").split(",") if part.strip())
        if get_origin(kind) is Literal:
            expected = f"one of {', '.join(get_args(kind))}"
            return {choice: choice for choice in get_args(kind)}[word]
        if kind is bool:
            expected = "true or false"
            return _SWITCHES[word.lower()]
        if kind is int:
            expected = "a whole number"
            return int(word)
        if kind is float:
            expected = "a number"
            if not math.isfinite(float(word)):
                raise ValueError(word)
            return float(word)
    except (ValueError, KeyError):
        raise ValueError(f"{key}={text}: {key} must be {expected}") from None
    return word
