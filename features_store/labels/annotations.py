"""Annotation text to label track: `<the task's folder>/{Train_Set,Validation_Set}/<trial>.txt`.

Tested by tests/features_store/labels/test_annotations.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..schema import plain_name
from .kinds import VA, LabelKind, OtherTaskError, kind_of_folder
from .text import peek, plain_numbers, read_text, row_numbers

SETS = ("Train_Set", "Validation_Set")
LABEL_SUFFIXES = (".txt", ".csv")


@dataclass(frozen=True)
class LabelTrack:
    """Labels of one trial: `values` float32 [T, L] as the files of its kind have them, `valid` bool [T].

    A row is valid if it has a label; what is masked keeps the number of the file (−5, or −1). Raises ValueError where
    values and flags do not fit each other.
    """

    trial: str
    values: NDArray[np.float32]
    valid: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or len(self.values) != len(self.valid):
            raise ValueError(f"{self.trial}: values {self.values.shape} but {len(self.valid)} validity flags")


def annotation_files(root: Path, kind: LabelKind = VA) -> dict[str, Path]:
    """{trial: label file} of both sets, sorted; the set's name is `path.parent.name`.

    The challenge's folder may be `root` itself or lie anywhere below. Raises ValueError where there is none,
    or two, where a trial has two files, where labels are another task's, or lie in a file of another name.
    """
    folder = challenge_folder(root, kind)
    if folder is None:
        for path in candidates(root):
            peek(path, kind)  # labels of another task are named
        raise ValueError(f"{root} holds no folder {kind.folder}; name the folder of the ABAW annotations")
    files: dict[str, Path] = {}
    for path in sorted(path for name in SETS for path in (folder / name).glob("*")):
        if path.name.startswith("."):
            continue  # "._name.txt" of macOS
        header = peek(path, kind)
        if is_label_file(path):
            add_label_file(files, plain_name(path.stem), path)
        elif header in kind.headers:
            raise ValueError(f"{path} begins like a label file, but is not called <trial>.txt or .csv; rename it")
    if not files:
        raise ValueError(f"{folder} holds no label file {SETS[0]}/<trial>.txt or {SETS[1]}/<trial>.txt")
    return dict(sorted(files.items()))


def is_label_file(path: Path) -> bool:
    """Whether a file has the name of a label file: `.txt` or `.csv`, in whatever case."""
    return path.suffix.strip().lower() in LABEL_SUFFIXES


def add_label_file(files: dict[str, Path], trial: str, path: Path) -> None:
    """Add a trial's file. Raises ValueError where it has one already, by this name or one that only looks the same."""
    if trial in files:
        in_both = {files[trial].parent.name, path.parent.name} == set(SETS)
        fault = "is in both sets" if in_both else "has two label files"
        raise ValueError(f"trial {trial!r} {fault}: {files[trial]} and {path}; remove one")
    files[trial] = path


def read_labels(path: Path, kind: LabelKind = VA) -> LabelTrack:
    """Labels of one file. Raises ValueError with `file:line` on a wrong header, short row or wrong number."""
    text = read_text(path, kind, (kind.header,))
    values = plain_numbers(text.body, kind.width, kind)
    if values is None:
        # Row by row as the file's rules have it: what the quick way must agree with.
        rows = [row_numbers(place, line, kind.header, kind) for place, line in text.lines()]
        values = np.array(rows, dtype=np.float64).reshape(len(rows), kind.width)
    return LabelTrack(path.stem, values.astype(np.float32), kind.labelled(values))


def count_rows(path: Path, kind: LabelKind = VA) -> int:
    """Rows of a label file, masked ones too: T where they have no times. Raises ValueError on a wrong header."""
    return sum(1 for _ in read_text(path, kind).lines())


def challenge_folder(root: Path, kind: LabelKind = VA) -> Path | None:
    """The folder of both sets: `root` or anywhere below; None where there is none.

    Raises ValueError on two, and where there are only folders of other tasks.
    """
    found = kind_of_folder(root.name)
    if found not in (None, kind.name):
        raise OtherTaskError(str(root), str(found), kind)
    if found == kind.name or any((root / name).is_dir() for name in SETS):
        return root
    others: list[tuple[Path, str]] = []
    for level in folder_levels(root):
        kinds = {folder: kind_of_folder(folder.name) for folder in level}
        named = sorted(folder for folder in level if kinds[folder] == kind.name)
        if len(named) > 1:
            raise ValueError(f"{root} holds several annotations, name one: {', '.join(map(str, named))}")
        if named:
            return named[0]
        others += [(folder, other) for folder, other in kinds.items() if other]
    for folder, other in others:
        raise OtherTaskError(str(folder), other, kind)
    return None


def folder_levels(root: Path) -> Iterator[list[Path]]:
    """Folders below, level by level: annotations lie high, a million cropped pictures may lie beside.

    A folder that links lead to again is given once.
    """
    level = [root]
    visited = {os.path.realpath(root)}
    while level:
        below: dict[str, Path] = {}
        for folder in level:
            try:
                with os.scandir(folder) as entries:
                    children = sorted(Path(entry.path) for entry in entries if entry.is_dir())
            except PermissionError:
                continue  # not ours to read, so not the annotations either
            below.update({os.path.realpath(entry): entry for entry in reversed(children)})
        level = [entry for target, entry in below.items() if target not in visited]
        visited.update(below)
        yield level


def candidates(root: Path) -> Iterator[Path]:
    """Files below, named like labels, in folders that are not hidden; a folder reached twice by links counts once."""
    hidden: set[Path] = set()
    for level in ([root], *folder_levels(root)):
        for folder in sorted(level):
            if folder.parent in hidden or (folder.name.startswith(".") and folder != root):
                hidden.add(folder)
                continue
            for name in sorted(os.listdir(folder)):
                path = folder / name
                if name.startswith(".") or not is_label_file(path):
                    continue
                if path.is_file() or not path.exists():  # a link to nowhere fails when it is opened
                    yield path
