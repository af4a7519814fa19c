"""Which trials train and which validate in each fold, by name: the manifest, and its JSON.

Tested by tests/fusion/folds/test_manifest.py.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
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


@dataclass(frozen=True)
class Fold:
    """Trials of one fold, each on one side; neither side is empty. Raises ValueError otherwise."""

    number: int
    train: tuple[str, ...]
    validation: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_number(self.number)
        if both := sorted(set(self.train) & set(self.validation)):
            raise ValueError(f"fold {self.number}: on both sides: {preview(both)}")
        if twice := _twice(self.train + self.validation):
            raise ValueError(f"fold {self.number}: given twice: {preview(twice)}")
        if not self.train or not self.validation:
            raise ValueError(f"fold {self.number}: no trial to {'validate on' if self.train else 'train on'}")


@dataclass(frozen=True)
class Move:
    """A trial that grouping has put on another side of a fold than it would be on without.

    Raises ValueError on an unknown side, or a fold's number below 0.
    """

    fold: int
    trial: str
    to: Side

    def __post_init__(self) -> None:
        _check_number(self.fold)
        if self.to not in get_args(Side):
            raise ValueError(f"to is one of {', '.join(get_args(Side))}, got {self.to!r}")


@dataclass(frozen=True)
class Manifest:
    """The folds of a corpus; `subjects` has those of several trials, `on_both_sides` those split by fold 0.

    Raises ValueError without folds, where two have one number, and on an unknown grouping.
    """

    folds: tuple[Fold, ...]
    grouping: Grouping
    moved: tuple[Move, ...] = ()
    subjects: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    on_both_sides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        numbers = [fold.number for fold in self.folds]
        if not numbers or len(set(numbers)) < len(numbers):
            raise ValueError(f"a manifest has folds of different numbers, got {numbers}")
        if self.grouping not in get_args(Grouping):
            raise ValueError(f"grouping is one of {', '.join(get_args(Grouping))}, got {self.grouping!r}")

    def fold(self, number: int) -> Fold:
        """One fold by its number. Raises ValueError naming those there are."""
        for fold in self.folds:
            if fold.number == number:
                return fold
        known = ", ".join(str(fold.number) for fold in self.folds)
        raise ValueError(f"there is no fold {number}; there are {known}")


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
    """Write the manifest whole or not at all; with `about`, how it was made stands in a file beside it.

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
    named twice or on both sides, an empty side. OSError if it cannot be read.
    """
    try:
        return _parsed(json.loads(path.read_bytes(), object_pairs_hook=_object))
    except RecursionError:
        raise ValueError(f"{path} is not a fold manifest: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not a fold manifest: {error}") from error


def _parsed(content: Any) -> Manifest:
    optional = {"grouping", "subjects", "on_both_sides", "moved"}
    content = _keyed(content, {FORMAT_KEY, "folds"}, optional)
    if content[FORMAT_KEY] is True or content[FORMAT_KEY] != FORMAT:
        raise ValueError(f"{FORMAT_KEY} is {FORMAT}, got {content[FORMAT_KEY]!r}")
    subjects = _of_kind(dict, content.get("subjects", {}), "subjects")
    folds, moved = [], []
    for each in _of_kind(list, content["folds"], "folds"):
        fold = _keyed(each, {"fold", "train", "validation"})
        folds.append(Fold(fold["fold"], _names(fold["train"], "train"), _names(fold["validation"], "validation")))
    for each in _of_kind(list, content.get("moved", []), "moved"):
        move = _keyed(each, {"fold", "trial", "to"})
        (trial,) = _names([move["trial"]], "trial")
        moved.append(Move(move["fold"], trial, move["to"]))
    return Manifest(
        tuple(folds),
        content.get("grouping", "none"),
        tuple(moved),
        {subject: _names(trials, "subjects") for subject, trials in subjects.items()},
        _names(content.get("on_both_sides", []), "on_both_sides"),
    )


def _keyed(content: Any, needed: set[str], optional: Iterable[str] = ()) -> dict[str, Any]:
    """A JSON object with all of the needed keys and no unknown one."""
    content = _of_kind(dict, content, "it")
    for fault, keys in (("unknown", content.keys() - needed.union(optional)), ("missing", needed - content.keys())):
        if keys:
            raise ValueError(f"{fault} keys: {preview(sorted(keys))}")
    return dict(content)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; Python's own reader takes the last of two values with one key."""
    if twice := _twice([key for key, _ in pairs]):
        raise ValueError(f"keys given twice: {preview(twice)}")
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


def _check_number(fold: Any) -> None:
    if not isinstance(fold, int) or isinstance(fold, bool) or fold < 0:
        raise ValueError(f"a fold's number is 0 or more, got {fold!r}")
