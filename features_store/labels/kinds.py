"""The kinds of labels there are: header, numbers of a row and mask of their files, names of their folders.

    VA      valence,arousal                    two numbers in [-1, 1], or -5
    EXPR    Neutral,Anger,…,Other              one class, 0 to 7, or -1
    AU      AU1,AU2,…,AU26                     twelve numbers 0 or 1, each of which may be -1

Source: docs/sources.md (Labels). Tested by tests/features_store/labels/test_kinds.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Values = Literal["real", "class", "flags"]


@dataclass(frozen=True)
class LabelKind:
    """What the label files of one task look like.

    `names` are those of the header, `values` what a row holds: a real number in [`lowest`, `highest`] for each name
    (-5: masked, and times of their own are allowed), the number of one class, or a flag 0 or 1 for each name (-1:
    masked). `about` says in a message what is labelled, `folder` what the challenge calls the folder, `folders` is
    the pattern of all the names that it has had. Raises ValueError where names are missing or twice the same.
    """

    name: str
    about: str
    names: tuple[str, ...]
    values: Values
    folder: str = "Train_Set"
    folders: str = "(?!)"
    lowest: float = -1.0
    highest: float = 1.0

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"labels {self.name} need different names, got {list(self.names)}")

    @property
    def header(self) -> str:
        """The first line of a file with one row per frame."""
        return ",".join(self.names)

    @property
    def timed_header(self) -> str:
        """The first line of a file with times of its own; empty where labels cannot be interpolated."""
        return f"time,{self.header}" if self.values == "real" else ""

    @property
    def headers(self) -> tuple[str, ...]:
        """Every first line that a file may have."""
        return tuple(filter(None, (self.header, self.timed_header)))

    @property
    def width(self) -> int:
        """L: how many numbers a row has, its time aside."""
        return 1 if self.values == "class" else len(self.names)

    @property
    def masked(self) -> float:
        """What stands where there is no label."""
        return -5.0 if self.values == "real" else -1.0

    @property
    def range(self) -> str:
        """What a label is, in words."""
        words = {"real": f"in [{self.lowest:g}, {self.highest:g}]", "flags": "0 or 1"}
        return words.get(self.values, f"a class, 0 to {len(self.names) - 1}")

    def allowed(self, labels: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which numbers [T, L] are labels, or the mask."""
        low, high = self.lowest, self.highest
        if self.values != "real":
            low, high = 0.0, len(self.names) - 1.0 if self.values == "class" else 1.0
        within = (labels >= low) & (labels <= high)
        if self.values != "real":
            within &= labels == np.floor(labels)
        allowed: NDArray[np.bool_] = within | (labels == self.masked)
        return allowed

    def labelled(self, labels: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which rows [T] of [T, L] have a label: every number of them, of flags at least one."""
        known = labels != self.masked
        rows: NDArray[np.bool_] = known.any(axis=1) if self.values == "flags" else known.all(axis=1)
        return rows


VA = LabelKind(
    "VA", "valence and arousal", ("valence", "arousal"), "real", "VA_Estimation_Challenge", "VA_Estimation_Challenge"
)
# Folders have had other names in each edition: EXPR_Classification_Challenge, EXPR_Recognition_Challenge, AU_Set …
EXPR = LabelKind(
    "EXPR",
    "classes of expression",
    ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other"),
    "class",
    "EXPR_Recognition_Challenge",
    r"(?i:(EXPR|Expression)(_[a-z]+)*_(Challenge|Set))",
)
AU = LabelKind(
    "AU",
    "action units",
    ("AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU15", "AU23", "AU24", "AU25", "AU26"),
    "flags",
    "AU_Detection_Challenge",
    r"(?i:AU(_[a-z]+)*_(Challenge|Set))",
)
KINDS = {kind.name: kind for kind in (VA, EXPR, AU)}
_ABOUT = {**{name: kind.about for name, kind in KINDS.items()}, "MTL": "several tasks in one file"}
_FOLDERS = {**{name: kind.folders for name, kind in KINDS.items()}, "MTL": r"(?i:MTL(_[a-z]+)*_(Challenge|Set))"}


class OtherTaskError(ValueError):
    """Labels of another kind, `found`, than the one that is needed."""

    def __init__(self, place: str, found: str, kind: LabelKind) -> None:
        self.found = found
        super().__init__(
            f"{place} holds {found} labels ({_ABOUT[found]}), and {kind.about} are needed: "
            f"a folder {kind.folder}, or files with the first line {' or '.join(map(repr, kind.headers))}"
        )


def kind_of_folder(name: str) -> str | None:
    """The kind of labels, or MTL, whose folder in Aff-Wild2 has this name; None where none has."""
    return next((kind for kind, pattern in _FOLDERS.items() if re.fullmatch(pattern, name)), None)


def kind_of_header(header: str) -> str | None:
    """The kind of labels, or MTL, whose files have such a header, as far as one can tell; None if one cannot."""
    names = {name.strip().lower() for name in header.split(",")}
    if {"valence", "expression"} <= names:
        return "MTL"
    if {"neutral", "anger"} <= names:
        return "EXPR"
    if any(re.fullmatch(r"au_?\d+", name) for name in names):
        return "AU"
    return "VA" if {"valence", "arousal"} <= names else None
