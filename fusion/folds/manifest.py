"""Which trials train and which validate in each fold, by name: the manifest, and its JSON.

Tested by tests/fusion/folds/test_manifest.py.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ...features_store.disk.atomic import replace_file
from ...features_store.interchange.result_files import write_with_side_car
from ...shell.text import preview

Side = Literal["train", "validation"]
Grouping = Literal["subject", "none", "file"]
FORMAT_KEY = "avfuse_folds"
FORMAT = 1
_KEYS = {FORMAT_KEY, "grouping", "subjects", "on_both_sides", "moved", "folds"}


@dataclass(frozen=True)
class Fold:
    """Trials of one fold, each on one side; neither side is empty."""

    number: int
    train: tuple[str, ...]
    validation: tuple[str, ...]

    def __post_init__(self) -> None:
        if both := sorted(set(self.train) & set(self.validation)):
            raise ValueError(f"fold {self.number}: on both sides: {preview(both)}")
        if twice := _twice(self.train + self.validation):
            raise ValueError(f"fold {self.number}: given twice: {preview(twice)}")
        if not self.train or not self.validation:
            raise ValueError(f"fold {self.number}: no trial to {'validate on' if self.train else 'train on'}")


@dataclass(frozen=True)
class Move:
    """A trial that grouping has put on another side of a fold than it would be on without."""

    fold: int
    trial: str
    to: Side


@dataclass(frozen=True)
class Manifest:
    """The folds of a corpus; `subjects` has those of several trials, `on_both_sides` those split by fold 0."""

    folds: tuple[Fold, ...]
    grouping: Grouping
    moved: tuple[Move, ...] = ()
    subjects: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    on_both_sides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        numbers = [fold.number for fold in self.folds]
        if not numbers or len(set(numbers)) < len(numbers):
            raise ValueError(f"a manifest has folds of different numbers, got {numbers}")

    def fold(self, number: int) -> Fold:
        """One fold by its number. Raises ValueError naming those there are."""
        for fold in self.folds:
            if fold.number == number:
                return fold
        there = ", ".join(str(fold.number) for fold in self.folds)
        raise ValueError(f"there is no fold {number}; there are {there}")


def manifest_json(manifest: Manifest) -> str:
    """The manifest as JSON text by trial name; `read_manifest` gives the same manifest back."""
    folds = [{"fold": fold.number, "train": fold.train, "validation": fold.validation} for fold in manifest.folds]
    moved = [{"fold": move.fold, "trial": move.trial, "to": move.to} for move in manifest.moved]
    content = {
        FORMAT_KEY: FORMAT,
        "grouping": manifest.grouping,
        "subjects": dict(manifest.subjects),
        "on_both_sides": manifest.on_both_sides,
        "moved": moved,
        "folds": folds,
    }
    return json.dumps(content, indent=1) + "\n"


def write_manifest(path: Path, manifest: Manifest, about: Mapping[str, Any] | None = None) -> None:
    """Write the manifest and, where it is told, beside it how it was made; a file is whole or not there.

    Raises OSError.
    """
    content = manifest_json(manifest).encode()
    if about is not None:
        write_with_side_car(path, content, about)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)


def read_manifest(path: Path) -> Manifest:
    """The manifest of a file; of its keys only `avfuse_folds` and `folds` are needed.

    Raises ValueError naming the file and what is wrong: not JSON, another format number, an unknown key, a trial
    named twice or on both sides, an empty side. OSError where it cannot be read.
    """
    try:
        return _manifest(json.loads(path.read_bytes(), object_pairs_hook=_object))
    except RecursionError:
        raise ValueError(f"{path} is not a fold manifest: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not a fold manifest: {error}") from error


def _manifest(content: Any) -> Manifest:
    content = _checked(content, _KEYS, {FORMAT_KEY, "folds"})
    if content[FORMAT_KEY] is True or content[FORMAT_KEY] != FORMAT:
        raise ValueError(f"{FORMAT_KEY} is {FORMAT}, got {content[FORMAT_KEY]!r}")
    subjects = _of_kind(dict, content.get("subjects", {}), "subjects")
    return Manifest(
        tuple(map(_fold, _of_kind(list, content["folds"], "folds"))),
        _one_of(get_args(Grouping), content.get("grouping", "none"), "grouping"),
        tuple(map(_move, _of_kind(list, content.get("moved", []), "moved"))),
        {subject: _names(trials, "subjects") for subject, trials in subjects.items()},
        _names(content.get("on_both_sides", []), "on_both_sides"),
    )


def _fold(content: Any) -> Fold:
    keys = {"fold", "train", "validation"}
    content = _checked(content, keys, keys)
    return Fold(
        _number(content["fold"]), _names(content["train"], "train"), _names(content["validation"], "validation")
    )


def _move(content: Any) -> Move:
    keys = {"fold", "trial", "to"}
    content = _checked(content, keys, keys)
    (trial,) = _names([content["trial"]], "trial")
    return Move(_number(content["fold"]), trial, _one_of(get_args(Side), content["to"], "to"))


def _checked(content: Any, known: set[str], needed: set[str]) -> dict[str, Any]:
    content = _of_kind(dict, content, "it")
    for fault, keys in (("unknown", content.keys() - known), ("missing", needed - content.keys())):
        if keys:
            raise ValueError(f"{fault} keys: {preview(sorted(keys))}")
    return dict(content)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if twice := _twice([key for key, _ in pairs]):
        raise ValueError(f"keys that are there twice: {preview(twice)}")
    return dict(pairs)


def _twice(names: tuple[str, ...] | list[str]) -> list[str]:
    return sorted(name for name, times in Counter(names).items() if times > 1)


def _of_kind(kind: type, value: Any, what: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{what} must be a {'list' if kind is list else 'JSON object'}, got {value!r:.60}")
    return value


def _names(value: Any, what: str) -> tuple[str, ...]:
    names = _of_kind(list, value, what)
    if not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{what} must hold names only")
    return tuple(names)


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"a fold's number is 0 or more, got {value!r}")
    return value


def _one_of(words: tuple[str, ...], value: Any, what: str) -> Any:
    if value not in words:
        raise ValueError(f"{what} is one of {', '.join(words)}, got {value!r}")
    return value
