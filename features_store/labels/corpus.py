"""A corpus of labels: which trials there are, where each one's file lies, and its labels at the frames.

    …/VA_Estimation_Challenge/{Train_Set,Validation_Set}/<trial>.txt     the official split
    …/<any folders>/<trial>.csv (or .txt)                                no split: one file per trial

Each file has one row per frame (`valence,arousal`) or times of its own (`time,valence,arousal`); files of classes and
of action units have one row per frame. Labels of several kinds may lie side by side: one kind is asked for.
Tested by tests/features_store/labels/test_corpus.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..schema import plain_name
from .annotations import LabelTrack, add_label_file, annotation_files, candidates, challenge_folder, read_labels
from .kinds import KINDS, VA, LabelKind, OtherTaskError
from .text import read_header
from .timed import at_frames, check_reach, is_timed, read_timed

__all__ = [
    "SUBJECTS_HEADER",
    "Corpus",
    "by_label_name",
    "is_timed",
    "label_name",
    "label_names",
    "labels_of",
    "open_any_corpus",
    "open_corpus",
]

SUBJECTS_HEADER = "trial,subject"


@dataclass(frozen=True)
class Corpus:
    """Labels of one kind below `root`: trial → label file, sorted; trial → `Train_Set` or `Validation_Set`, or None.

    Raises ValueError where trials are not sorted, there is none, or the split does not name every one.
    """

    root: Path
    files: Mapping[str, Path]
    sets: Mapping[str, str] | None
    kind: LabelKind = VA

    def __post_init__(self) -> None:
        if not self.files or list(self.files) != sorted(self.files):
            raise ValueError(f"{self.root}: trials must be sorted, and there must be one")
        if self.sets is not None and self.sets.keys() != self.files.keys():
            raise ValueError(f"{self.root}: the split must name every trial")


def open_corpus(root: Path, kind: LabelKind = VA) -> Corpus:
    """Find the label files of one kind below `root`; hidden ones (`._name.txt`) are left out. Reads no rows.

    Without the challenge's folder a trial is a CSV file's path relative to `root`, without its extension; tables
    `trial,subject` may lie beside. Names of trials are as `plain_name` has them. Raises ValueError where there is no
    label file, or a header is wrong; OSError where there is no such folder.
    """
    if challenge_folder(root, kind) is not None:
        annotated = annotation_files(root, kind)
        return Corpus(root, annotated, {trial: path.parent.name for trial, path in annotated.items()}, kind)
    files: dict[str, Path] = {}
    for path in candidates(root):
        if read_header(path, kind, (*kind.headers, SUBJECTS_HEADER)) != SUBJECTS_HEADER:
            add_label_file(files, plain_name(path.relative_to(root).with_suffix("").as_posix()), path)
    if not files:
        raise ValueError(
            f"{root} holds neither a folder {kind.folder} nor a label file <trial>.csv or <trial>.txt "
            f"with the first line {' or '.join(map(repr, kind.headers))}"
        )
    return Corpus(root, dict(sorted(files.items())), None, kind)


def open_any_corpus(root: Path) -> Corpus:
    """The labels of whatever kind there are below `root`; of several kinds valence and arousal.

    Raises ValueError and OSError as `open_corpus` does.
    """
    try:
        return open_corpus(root)
    except OtherTaskError as error:
        if error.found not in KINDS:
            raise
        return open_corpus(root, KINDS[error.found])


def labels_of(
    corpus: Corpus, trial: str, time_s: NDArray[np.float64] | None = None, ends_early: bool = False
) -> LabelTrack:
    """Labels of one trial: one row per frame as in the file, or timed ones at the frames' `time_s`, float64 [T] in s.

    `ends_early`: the video goes on after the last frame. Raises ValueError with `file:line` on what is wrong in the
    file, on a trial that the corpus does not have, on timed labels without `time_s` or far beyond it.
    """
    if trial not in corpus.files:
        raise ValueError(f"{corpus.root} holds no labels of the trial {trial!r}")
    path = corpus.files[trial]
    if not is_timed(path, corpus.kind):
        track = read_labels(path, corpus.kind)
    elif time_s is not None:
        timed = replace(read_timed(path, corpus.kind), trial=trial)
        check_reach(timed, time_s, ends_early)
        track = at_frames(timed, time_s)
    else:
        raise ValueError(f"{path} has times of its own: the times of the frames are needed")
    if not len(track.valid):
        raise ValueError(f"{path}:1: no row follows the header")
    return replace(track, trial=trial)


def label_name(corpus: Corpus, trial: str) -> str | None:
    """What the labels call a trial of a store: its name there, or the last part of it; None without labels."""
    plain = plain_name(trial)
    return next((name for name in (plain, plain.rpartition("/")[2]) if name in corpus.files), None)


def by_label_name(names: Sequence[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """{name a label file may have: name in the store}: the whole name, and its last part if no other has the same.

    Names are compared as `plain_name` has them; one that is the same to the letter goes first. Also {name: the
    names of the store that share it}.
    """
    whole: dict[str, list[str]] = defaultdict(list)
    last: dict[str, list[str]] = defaultdict(list)
    for name in names:
        plain, last_part = label_names(name)
        whole[plain].append(name)
        last[last_part].append(name)
    found = {plain: [plain] if plain in each else each for plain, each in {**last, **whole}.items()}
    return (
        {plain: each[0] for plain, each in found.items() if len(each) == 1},
        {plain: each for plain, each in found.items() if len(each) > 1},
    )


def label_names(stored: str) -> tuple[str, str]:
    """What a label file of this trial of a store may be called: its plain name, or the last part of it."""
    plain = plain_name(stored)
    return plain, plain.rpartition("/")[2]
