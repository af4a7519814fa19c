"""Which trials are of one subject: as their names show, or as a table `trial,subject` says.

    video59, video59_left, video59_right                       one video, two people: kept together
    video86_1, video86_2 · 122-60-1920x1080-1, …-2             parts of one video, as Aff-Wild2 numbers them
    walk_part1, walk-part2, walk_pt3                           parts that say so
    122-60-1920x1080-3_left                                    both
    trial_001, trial_002                                       numbers alone say nothing: subjects of their own

Tested by tests/fusion/folds/test_subjects.py.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from ...features_store.labels.corpus import SUBJECTS_HEADER
from ...features_store.schema import plain_name, subject_of
from ...shell.text import preview
from .manifest import Grouping

GroupChoice = Literal["auto", "subject", "none"]


def subjects_of(
    trials: Iterable[str], group: GroupChoice, groups: Mapping[str, str] | None
) -> tuple[Grouping, dict[str, str]]:
    """How trials are grouped, and {trial: subject}; without grouping each trial is a subject of its own.

    `auto` groups where names show that two trials share a subject. `groups` is the user's table, which must
    name every trial. Raises ValueError if it does not, or if `group` forbids it.
    """
    names = list(trials)
    if groups is not None:
        if group == "none":
            raise ValueError("a table of groups and no grouping contradict each other; omit one of them")
        if missing := [name for name in names if name not in groups]:
            raise ValueError(f"the table of groups names no subject for {preview(missing)}")
        return "file", {name: groups[name] for name in names}
    shown = {name: subject_of(name) for name in names}
    if group == "subject" or (group == "auto" and len(set(shown.values())) < len(shown)):
        return "subject", shown
    return "none", {name: name for name in names}


def read_groups(path: Path) -> dict[str, str]:
    """{trial: subject} of a CSV file with the header `trial,subject`.

    Raises ValueError with `file:line` on a wrong header, a short row, an empty cell, or a trial named twice.
    """
    content = path.read_bytes()
    try:
        lines = content.decode("utf-8-sig").rstrip().split("\n")  # empty lines at the end do not count
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{line}: not UTF-8 text") from error
    reader = csv.reader(lines, strict=True, skipinitialspace=True)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise ValueError(f"{path}:{max(reader.line_num, 1)}: {error}") from error
    if not rows or rows[0][1] != SUBJECTS_HEADER.split(","):
        raise ValueError(f"{path}:1: the first line is {SUBJECTS_HEADER!r}, got {lines[0]!r:.60}")
    groups: dict[str, str] = {}
    for line, cells in rows[1:]:
        if len(cells) != 2 or not all(cells):
            raise ValueError(f"{path}:{line}: a row is {SUBJECTS_HEADER!r}, got {','.join(cells)!r:.60}")
        trial, subject = plain_name(cells[0]), cells[1]
        if trial in groups:
            raise ValueError(f"{path}:{line}: the trial {trial!r} is given twice")
        groups[trial] = subject
    return groups
