"""`--out`: a folder of its own for the results of each call; never one that holds anything else.

    OUT/made.json      how they were made, and which files they are: only these are ever replaced
    OUT/…              the files; a store beside them is left alone

    result_folder      all files together, at the end
    growing_folder     part by part, each as soon as it is made: what is stopped goes on where it was

Tested by tests/fusion/results/test_folder.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...features_store.disk.atomic import write_json
from ...features_store.disk.scratch import SCRATCH, scratch_directory, sweep_scratch
from ...features_store.interchange.result_files import MADE_FILE, check_place
from ...features_store.labels.annotations import is_label_file
from ...features_store.labels.corpus import Corpus
from ...features_store.schema import FORMAT_KEY, NODE_FILE
from ...shell.text import preview

_FILES, _DONE = "files", "done"
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
        new = _names_below(scratch)
        write_json(
            out / MADE_FILE, {"results": kind, "made": made, "unfinished": True, _FILES: sorted({*earlier, *new})}
        )
        _remove(out, earlier)
        _move(scratch, out, new)
    write_json(out / MADE_FILE, {"results": kind, "made": made, _FILES: new})


@dataclass(frozen=True)
class Part:
    """Files of a result that belong together, and a `digest` of all that they are made from."""

    digest: str
    files: tuple[str, ...]


class GrowingFolder:
    """Results that appear part by part: a part's files are made in `scratch`, and moved by `publish`."""

    def __init__(self, out: Path, scratch: Path, about: Mapping[str, Any], done: dict[str, str]) -> None:
        self.scratch = scratch
        self._out, self._about, self._done = out, about, done

    def has(self, part: str) -> bool:
        """Whether an earlier call has made all files of this part from the same."""
        return part in self._done

    def publish(self, part: str, digest: str | None) -> None:
        """Move all that lies in `scratch` to its place. Without `digest` the next call makes the part again."""
        _move(self.scratch, self._out, _names_below(self.scratch))
        if digest is not None:
            self._done[part] = digest
        write_json(self._out / MADE_FILE, {**self._about, "unfinished": True, _DONE: self._done})


@contextmanager
def growing_folder(
    out: Path, kind: str, made: Mapping[str, Any], parts: Mapping[str, Part], others: Sequence[str] = ()
) -> Iterator[GrowingFolder]:
    """A folder that gets its `parts` one by one, and `others`, files that belong to no part.

    What an earlier call has made of other digests goes at once, so that the folder never holds results of two calls;
    parts of the same digest stay, and need not be made again. Until the end made.json says `unfinished`; where a
    process is killed, the parts that were published are whole, and the next call knows them. Raises ValueError as
    `earlier_files` does, OSError.
    """
    out.mkdir(parents=True, exist_ok=True)
    sweep_scratch(out)
    earlier = set(earlier_files(out, kind))
    known = json.loads((out / MADE_FILE).read_bytes()).get(_DONE) if earlier else None
    before = known if isinstance(known, dict) else {}
    same = {name: part for name, part in parts.items() if before.get(name) == part.digest}
    done = {name: part.digest for name, part in same.items() if earlier.issuperset(part.files)}
    stays = {file for part in same.values() for file in part.files}
    if earlier <= stays.union(others):
        stays.update(others)  # they say of the others what is still true
    wanted = {*others, *(file for part in parts.values() for file in part.files)}
    about = {"results": kind, "made": made, _FILES: sorted(wanted | earlier)}
    write_json(out / MADE_FILE, {**about, "unfinished": True, _DONE: done})
    _remove(out, sorted(earlier - stays))
    with scratch_directory(out) as scratch:
        folder = GrowingFolder(out, scratch, about, done)
        yield folder
        _move(scratch, out, _names_below(scratch))
    files = sorted(name for name in wanted if (out / name).is_file())
    write_json(out / MADE_FILE, {"results": kind, "made": made, _FILES: files, _DONE: done})


def _names_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in _files_below(folder))


def _move(scratch: Path, out: Path, names: Sequence[str]) -> None:
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (scratch / name).replace(out / name)


def _remove(out: Path, names: Sequence[str]) -> None:
    """Remove files, then folders that hold nothing any more, and those above them."""
    for name in names:
        (out / name).unlink(missing_ok=True)
    for parent in sorted({(out / name).parent for name in names} - {out}, reverse=True):
        folder = parent
        with suppress(OSError):
            while folder != out:
                folder.rmdir()
                folder = folder.parent


def _files_below(folder: Path) -> Iterator[Path]:
    """Every file below, except for what living and dead calls have in scratch, and those of a store straight in it."""
    for parent, folders, files in os.walk(folder):
        if Path(parent) == folder:
            nodes = {name: folder / name / NODE_FILE for name in folders}
            stores = [name for name, node in nodes.items() if node.is_file() and FORMAT_KEY in node.read_text("utf-8")]
            folders[:] = [name for name in folders if name != SCRATCH and name not in stores]
        links = [name for name in folders if Path(parent, name).is_symlink()]
        yield from (Path(parent, name) for name in (*files, *links))
