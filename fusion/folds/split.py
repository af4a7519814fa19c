"""The folds of a corpus: the official split and its rotation, or N slices where there is none.

    official     train names, sorted, in five even slices (the last takes the rest); V = Validation_Set

        fold 0   [ 0 | 1 | 2 | 3 | 4 ] train     V validates             the official split, always as it is
        fold 1   [ 0 | 1 | 2 | 3 ] V   train     slice 4 validates
          …                                        …
        fold 5   [ 1 | 2 | 3 | 4 ] V   train     slice 0 validates

    none         all names, sorted, in N slices; fold k validates on slice k

A subject is in one slice: with the official split that of its first train trial, else slices are cut between
subjects. The rotation is that of the reference's folds (A3, 356 train and 76 validation trials).
Tested by tests/fusion/folds/test_split.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ...features_store.labels.annotations import SETS
from ...features_store.labels.corpus import Corpus
from ...shell.text import counted
from .manifest import Fold, Manifest, Move
from .subjects import GroupChoice, subjects_of

SLICES = 5


def make_folds(
    corpus: Corpus,
    *,
    folds: int | None = None,
    group: GroupChoice = "auto",
    groups: Mapping[str, str] | None = None,
) -> Manifest:
    """The folds of a corpus: 0-5 with the official split, else 0 to `folds` - 1; subjects kept together.

    `groups` is {trial: subject}; without it `group` says whether names decide. Fold 0 stays the official split
    whatever the subjects. Too few train trials or subjects for five slices that are not empty: fold 0 alone.
    Raises ValueError if `folds` is missing or not allowed, or more than there are subjects; if a set is
    empty; if `groups` does not name every trial.
    """
    grouping, subjects = subjects_of(corpus.files, group, groups)
    made = _cut(corpus, subjects, folds)
    ungrouped = _cut(corpus, {trial: trial for trial in corpus.files}, folds)
    moved = []  # trials that are on another side than without grouping
    for fold, plain in zip(made, ungrouped, strict=False):
        to_train, to_validation = set(fold.train) - set(plain.train), set(fold.validation) - set(plain.validation)
        moved += [Move(fold.number, trial, "train") for trial in sorted(to_train)]
        moved += [Move(fold.number, trial, "validation") for trial in sorted(to_validation)]
    together = {subject: tuple(trials) for subject, trials in _trials_of(subjects).items() if len(trials) > 1}
    train, validation = ({subjects[trial] for trial in side} for side in (made[0].train, made[0].validation))
    return Manifest(made, grouping, tuple(moved), together, tuple(sorted(train & validation)))


def _cut(corpus: Corpus, subjects: Mapping[str, str], folds: int | None) -> tuple[Fold, ...]:
    """The folds, whole subjects on one side: the official split and its rotation, or `folds` slices."""
    if corpus.sets is None:
        if folds is None:
            raise ValueError(f"{corpus.root} has no official split ({SETS[0]}, {SETS[1]}): give --folds N")
        together = list(_trials_of(subjects).values())
        if not 2 <= folds <= len(together):
            have = f"{counted(len(together), 'subject')} of {counted(len(subjects), 'trial')}"
            raise ValueError(f"{folds} folds cannot be cut from {have}")
        return tuple(_holding(number, corpus, set(each)) for number, each in enumerate(_slices(together, folds)))
    if folds is not None:
        raise ValueError(
            f"{corpus.root} has the official split and its six folds: omit --folds; for folds of your own, "
            f"give a folder with the label files outside of {SETS[0]} and {SETS[1]}"
        )
    train, validation = (tuple(trial for trial in corpus.files if corpus.sets[trial] == name) for name in SETS)
    for name, trials in zip(SETS, (train, validation), strict=True):
        if not trials:
            raise ValueError(f"{corpus.root}: the official split has no trial in {name}")
    made = [Fold(0, train, validation)]
    # A subject is in the slice of its first train trial; there are no slices with fewer trials than slices.
    size = len(train) // SLICES
    slice_of: dict[str, int] = {}
    for index, trial in enumerate(train if size else ()):
        slice_of.setdefault(subjects[trial], min(index // size, SLICES - 1))
    if set(slice_of.values()) == set(range(SLICES)):
        for number in range(1, SLICES + 1):
            held = {trial for trial, subject in subjects.items() if slice_of.get(subject) == SLICES - number}
            made.append(_holding(number, corpus, held))
    return tuple(made)


def _slices(together: list[list[str]], count: int) -> Iterator[list[str]]:
    """Whole subjects, in order, in `count` slices: each as near as possible to an even share of what is left."""
    left = sum(map(len, together))
    start = 0
    for after in range(count - 1, -1, -1):
        share = -(-left // (after + 1))
        stop, size = start + 1, len(together[start])
        while stop < len(together) - after and (
            not after or abs(size + len(together[stop]) - share) <= abs(size - share)
        ):
            size += len(together[stop])
            stop += 1
        yield [trial for trials in together[start:stop] for trial in trials]
        left, start = left - size, stop


def _holding(number: int, corpus: Corpus, held: set[str]) -> Fold:
    """The fold that validates on the `held` trials and trains on all others."""
    train = tuple(trial for trial in corpus.files if trial not in held)
    return Fold(number, train, tuple(trial for trial in corpus.files if trial in held))


def _trials_of(subjects: Mapping[str, str]) -> dict[str, list[str]]:
    """Subject → its trials, in the order of their first trials."""
    together: dict[str, list[str]] = {}
    for trial, subject in subjects.items():
        together.setdefault(subject, []).append(trial)
    return together
