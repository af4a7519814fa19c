"""`--out`: a folder of its own for each making of results; never one that holds anything else.

    OUT/made.json      how it was made, and which files are of that making: these, no other, are replaced
    OUT/…              those files

Tested by tests/fusion/results/test_folder.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...features_store.disk.atomic import write_json
from ...features_store.disk.scratch import SCRATCH, scratch_directory, sweep_scratch
from ...features_store.interchange.result_files import MADE_FILE, check_place
from ...features_store.labels.annotations import is_label_file
from ...features_store.labels.corpus import Corpus
from ...shell.text import preview

_FILES = "files"
_ENOUGH = 50


def check_among_labels(out: Path, corpus: Corpus) -> None:
    """Raise ValueError where `out` lies among labels without the challenge's folder: each text file there is one."""
    if corpus.sets is None and out.resolve().is_relative_to(corpus.root.resolve()):
        raise ValueError(
            f"{out} lies in the annotations {corpus.root}, where it would count as labels; name another --out"
        )


def check_no_label(file: Path, corpus: Corpus) -> None:
    """Raise ValueError where a file lies among the labels and is called as they are."""
    if is_label_file(file) and file.resolve().is_relative_to(corpus.root.resolve()):
        raise ValueError(f"{file} would count as labels in {corpus.root}; name it {file.stem}.json, or another place")


def earlier_files(out: Path, kind: str) -> list[str]:
    """Files of an earlier making of this kind in `out`, as it tells itself; none in a folder that is new or empty.

    Raises ValueError where it holds others, and where `out` lies in a store.
    """
    check_place(out)
    known = _told(out / MADE_FILE, kind)
    found = (path.relative_to(out).as_posix() for path in _files_below(out))
    ours, others = [], []
    for name in found:
        if name in known:
            ours.append(name)
        elif name != MADE_FILE or not known:
            others.append(name)
        if len(others) > _ENOUGH:  # a folder of crops holds millions
            break
    if others:
        raise ValueError(f"{out} holds other files ({preview(sorted(others))}); name another --out")
    return sorted(ours)


@contextmanager
def result_folder(out: Path, kind: str, made: Mapping[str, Any]) -> Iterator[Path]:
    """A scratch folder for the files of one making; at the end they are moved to `out`, where earlier ones go.

    `kind` is the command's name: results of another one are not replaced. An error leaves `out` as it was. made.json
    gets `made` and the names of the files; while they are
    moved it says `unfinished`. Raises ValueError as `earlier_files` does, OSError.
    """
    out.mkdir(parents=True, exist_ok=True)
    sweep_scratch(out)
    earlier = earlier_files(out, kind)
    with scratch_directory(out) as scratch:
        yield scratch
        new = sorted(path.relative_to(scratch).as_posix() for path in _files_below(scratch))
        write_json(
            out / MADE_FILE, {"results": kind, "made": made, "unfinished": True, _FILES: sorted({*earlier, *new})}
        )
        for name in earlier:
            (out / name).unlink(missing_ok=True)
        for folder in sorted({(out / name).parent for name in earlier} - {out}, reverse=True):
            _remove_empty(folder, out)
        for name in new:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (scratch / name).replace(out / name)
    write_json(out / MADE_FILE, {"results": kind, "made": made, _FILES: new})


def _told(marker: Path, kind: str) -> set[str]:
    """The files that a marker names; none where it is missing, of another kind, or another file."""
    try:
        content = json.loads(marker.read_bytes())
    except (OSError, ValueError):
        return set()
    names = content.get(_FILES) if isinstance(content, dict) and content.get("results") == kind else None
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()


def _files_below(folder: Path) -> Iterator[Path]:
    """Every file below, what living and dead calls have in scratch aside."""
    for here, folders, files in os.walk(folder):
        if Path(here) == folder and SCRATCH in folders:
            folders.remove(SCRATCH)
        links = [name for name in folders if Path(here, name).is_symlink()]
        yield from (Path(here, name) for name in (*files, *links))


def _remove_empty(folder: Path, up_to: Path) -> None:
    """Remove a folder, and those above it, that hold nothing any more."""
    while folder != up_to:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
