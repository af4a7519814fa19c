"""`--out`: a folder of its own for the results of each call; never one that holds anything else.

    OUT/made.json      how they were made, and which files they are: only these are ever replaced
    OUT/…              the files; a store beside them is left alone

Tested by tests/fusion/results/test_folder.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ...features_store.disk.atomic import write_json
from ...features_store.disk.scratch import SCRATCH, scratch_directory, sweep_scratch
from ...features_store.interchange.result_files import MADE_FILE, check_place
from ...features_store.labels.annotations import is_label_file
from ...features_store.labels.corpus import Corpus
from ...features_store.schema import FORMAT_KEY, NODE_FILE
from ...shell.text import preview

_FILES = "files"
_ENOUGH = 50


def check_among_labels(out: Path, corpus: Corpus) -> None:
    """Raise ValueError if `out` lies among labels without the challenge's folder: each text file there is one."""
    if corpus.sets is None and out.resolve().is_relative_to(corpus.root.resolve()):
        raise ValueError(
            f"{out} lies in the annotations {corpus.root}, where it would count as labels; name another --out"
        )


def check_no_label(file: Path, corpus: Corpus) -> None:
    """Raise ValueError if a file lies among the labels and is named like them."""
    if is_label_file(file) and file.resolve().is_relative_to(corpus.root.resolve()):
        raise ValueError(
            f"{file} would count as labels in {corpus.root}; name it {file.stem}.json, or choose another folder"
        )


def earlier_files(out: Path, kind: str) -> list[str]:
    """Files that an earlier call of this kind has made in `out`, by its made.json; none in a new or empty folder.

    Raises ValueError if it holds others, or if `out` lies in a store.
    """
    check_place(out)
    try:
        made = json.loads((out / MADE_FILE).read_bytes())
    except (OSError, ValueError):
        made = None
    names = made.get(_FILES) if isinstance(made, dict) and made.get("results") == kind else None
    known = {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()
    ours, others = [], []
    for path in _files_below(out):
        name = path.relative_to(out).as_posix()
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
    """A scratch folder for the files of one call; at the end they replace the earlier ones in `out`.

    `kind` is the command's name: results of another one are not replaced. After an error `out` is as it was.
    made.json gets `made` and the names of the files; while they are moved it says `unfinished`. Raises ValueError as
    `earlier_files` does, OSError.
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
        # Folders that hold nothing any more go, and those above them.
        for parent in sorted({(out / name).parent for name in earlier} - {out}, reverse=True):
            folder = parent
            with suppress(OSError):
                while folder != out:
                    folder.rmdir()
                    folder = folder.parent
        for name in new:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (scratch / name).replace(out / name)
    write_json(out / MADE_FILE, {"results": kind, "made": made, _FILES: new})


def _files_below(folder: Path) -> Iterator[Path]:
    """Every file below, except for what living and dead calls have in scratch, and those of a store straight in it."""
    for parent, folders, files in os.walk(folder):
        if Path(parent) == folder:
            nodes = {name: folder / name / NODE_FILE for name in folders}
            stores = [name for name, node in nodes.items() if node.is_file() and FORMAT_KEY in node.read_text("utf-8")]
            folders[:] = [name for name in folders if name != SCRATCH and name not in stores]
        links = [name for name in folders if Path(parent, name).is_symlink()]
        yield from (Path(parent, name) for name in (*files, *links))
