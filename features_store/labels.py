"""Annotation text to label track: `VA_Estimation_Challenge/{Train_Set,Validation_Set}/<trial>.txt`.

Tested by tests/features_store/test_labels.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CHALLENGE = "VA_Estimation_Challenge"
SETS = ("Train_Set", "Validation_Set")
HEADER = b"valence,arousal"
MASKED = -5.0
_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_BOM = b"\xef\xbb\xbf"


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
    folder = _challenge_folder(root)
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
    rows = [_row(path, number, line) for number, line in enumerate(_data_lines(path), start=2)]
    values = np.array(rows, dtype=np.float64).reshape(len(rows), 2)
    return LabelTrack(path.stem, values.astype(np.float32), (values != MASKED).all(axis=1))


def count_rows(path: Path) -> int:
    """T: label rows of a file, masked ones too. Raises ValueError with `file:line` on a wrong header."""
    return len(_data_lines(path))


def _data_lines(path: Path) -> list[bytes]:
    """Lines after the header; empty ones at the end do not count."""
    lines = [line.rstrip(b"\r") for line in path.read_bytes().removeprefix(_BOM).rstrip().split(b"\n")]
    if lines[0] != HEADER:
        raise ValueError(f"{path}:1: the first line is {HEADER.decode()!r}, got {_shown(lines[0])}")
    return lines[1:]


def _row(path: Path, number: int, line: bytes) -> tuple[float, float]:
    cells = [cell.strip() for cell in line.split(b",")]
    if len(cells) != 2 or not all(_NUMBER.fullmatch(cell) for cell in cells):
        raise ValueError(f"{path}:{number}: a row is two numbers 'valence,arousal', got {_shown(line)}")
    valence, arousal = float(cells[0]), float(cells[1])
    for value in (valence, arousal):
        if value != MASKED and not -1.0 <= value <= 1.0:
            raise ValueError(f"{path}:{number}: {value} is neither in [-1, 1] nor -5")
    return valence, arousal


def _shown(line: bytes) -> str:
    text = line.decode("utf-8", "replace")
    return repr(text if len(text) <= 60 else f"{text[:60]}…")


def _challenge_folder(root: Path) -> Path:
    if root.name == CHALLENGE or any((root / name).is_dir() for name in SETS):
        return root
    for level in _levels(root):
        found = sorted(folder for folder in level if folder.name == CHALLENGE)
        if len(found) > 1:
            raise ValueError(f"{root} holds several annotations, name one: {', '.join(map(str, found))}")
        if found:
            return found[0]
    raise ValueError(f"{root} holds no folder {CHALLENGE}; name the folder of the ABAW annotations")


def _levels(root: Path) -> Iterator[list[Path]]:
    """Folders below, level by level: annotations lie high, a million cropped pictures may lie beside."""
    level = [root]
    visited: set[Path] = set()
    while level:
        level = [child for folder in level for child in _folders(folder)]
        level = [child for child in level if child.resolve() not in visited]
        visited.update(child.resolve() for child in level)
        yield level


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir()]
    except PermissionError:
        return []  # not ours to read, so not the annotations either
