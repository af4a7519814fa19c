"""Annotation text to label track: `VA_Estimation_Challenge/{Train_Set,Validation_Set}/<trial>.txt`.

Tested by tests/features_store/test_labels.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .label_text import (
    FRAME_HEADER,
    MASKED,
    cells_of,
    check_range,
    in_range,
    numbers_in,
    plain_numbers,
    read_text,
)

CHALLENGE = "VA_Estimation_Challenge"
SETS = ("Train_Set", "Validation_Set")


@dataclass(frozen=True)
class LabelTrack:
    """Labels of one trial: `values` float32 [T, 2] (valence, arousal), `valid` bool [T], false on −5 rows.

    Masked rows keep the numbers of the file.
    """

    trial: str
    values: NDArray[np.float32]
    valid: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.valid), 2):
            raise ValueError(f"{self.trial}: values {self.values.shape} but {len(self.valid)} validity flags")


def annotation_files(root: Path) -> dict[str, Path]:
    """{trial: label file} of both sets, sorted; the set's name is `path.parent.name`.

    The challenge's folder may be `root` itself or lie anywhere below. Raises ValueError where there is none,
    or two, or where a trial is in both sets.
    """
    folder = challenge_folder(root)
    if folder is None:
        raise ValueError(f"{root} holds no folder {CHALLENGE}; name the folder of the ABAW annotations")
    files: dict[str, Path] = {}
    for path in sorted(path for name in SETS for path in (folder / name).glob("*.txt")):
        if path.name.startswith("."):
            continue  # "._name.txt" of macOS
        if path.stem in files:
            raise ValueError(f"trial {path.stem!r} is in both sets: {files[path.stem]} and {path}; remove one")
        files[path.stem] = path
    if not files:
        raise ValueError(f"{folder} holds no label file {SETS[0]}/<trial>.txt or {SETS[1]}/<trial>.txt")
    return dict(sorted(files.items()))


def read_labels(path: Path) -> LabelTrack:
    """Labels of one file. Raises ValueError with `file:line` on a wrong header, short row or wrong number."""
    text = read_text(path, (FRAME_HEADER,))
    values = plain_numbers(text.body, 2)
    if values is None or not in_range(values):
        rows = [_row(place, line) for place, line in text.lines()]
        values = np.array(rows, dtype=np.float64).reshape(len(rows), 2)
    return LabelTrack(path.stem, values.astype(np.float32), (values != MASKED).all(axis=1))


def count_rows(path: Path) -> int:
    """T: label rows of a file, masked ones too. Raises ValueError with `file:line` on a wrong header."""
    return sum(1 for _ in read_text(path, (FRAME_HEADER,)).lines())


def _row(place: str, line: bytes) -> list[float]:
    """One row as the file's rules have it: what the quick way must agree with."""
    values = numbers_in(place, line, FRAME_HEADER, cells_of(place, line, FRAME_HEADER))
    check_range(place, values)
    return values


def challenge_folder(root: Path) -> Path | None:
    """The folder of both sets: `root` or anywhere below; None where there is none. Raises ValueError on two."""
    if root.name == CHALLENGE or any((root / name).is_dir() for name in SETS):
        return root
    for level in folder_levels(root):
        found = sorted(folder for folder in level if folder.name == CHALLENGE)
        if len(found) > 1:
            raise ValueError(f"{root} holds several annotations, name one: {', '.join(map(str, found))}")
        if found:
            return found[0]
    return None


def folder_levels(root: Path) -> Iterator[list[Path]]:
    """Folders below, level by level: annotations lie high, a million cropped pictures may lie beside.

    A folder that links lead to again is given once.
    """
    level = [root]
    visited = {os.path.realpath(root)}
    while level:
        below = {os.path.realpath(child): child for folder in level for child in reversed(_folders(folder))}
        level = [child for target, child in below.items() if target not in visited]
        visited.update(below)
        yield level


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir())
    except PermissionError:
        return []  # not ours to read, so not the annotations either
