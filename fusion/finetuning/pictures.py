"""Pictures with labels, to pre-train a face network on: read from a table, brought to one size, turned and mirrored.

    path,label                 classes, by number or by name; -1, which means unknown, leaves the picture out
    path,p_0,p_1,…             soft labels: votes or shares of each class
    path,valence,arousal       within −1 … 1; −2 and −5, which mean unknown, leave the picture out
    …,split                    train or validation, if the table says so; else a share of the pictures is drawn

Pictures are faces that were cut out already: the middle square of each is shrunk to what the network takes. One that
cannot be read is named and left out. Tested by tests/fusion/finetuning/test_pictures.py.
"""

from __future__ import annotations

import csv
import hashlib
import os
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from ...shell.text import counted, preview

Kind = Literal["classes", "va"]
PATH, LABEL, SPLIT, VA = "path", "label", "split", ("valence", "arousal")
_SIDES = {"train": False, "training": False, "val": True, "valid": True, "validation": True}
_UNKNOWN = (-2.0, -5.0)  # AffectNet's, Aff-Wild2's
_NO_CLASS = "-1"  # Aff-Wild2's
_MOST_PIXELS = 100_000_000
_AT_ONCE = 256
# What Pillow raises on files that are no pictures, or broken ones.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error)


@dataclass(frozen=True)
class Pictures:
    """N pictures by name, with targets float32 [N, C]: shares of `classes` that sum to 1, or valence and arousal.

    `held_out` bool [N]: those that are validated on. `views` uint8 [N, px, px, 3], empty before they are read;
    `sha256`: of names, targets and sides; `notes`: what a user should know.
    """

    root: Path
    kind: Kind
    classes: tuple[str, ...]
    names: tuple[str, ...]
    targets: NDArray[np.float32]
    held_out: NDArray[np.bool_]
    notes: tuple[str, ...] = ()
    views: NDArray[np.uint8] | None = None

    @property
    def sha256(self) -> str:
        """Hash of what is learned from, but for the pictures themselves."""
        digest = hashlib.sha256("\n".join((self.kind, *self.classes, *self.names)).encode())
        digest.update(self.targets.tobytes() + self.held_out.tobytes())
        return digest.hexdigest()


def read_table(root: Path, table: Path, share: float, seed: int) -> Pictures:
    """The pictures that a table names, with their labels; `share` of them, drawn by the seed, where it has no split.

    Raises ValueError with `file:line` for what is not as the module says; OSError.
    """
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{table}: not UTF-8 text") from error
    reader = csv.reader(text.splitlines(), skipinitialspace=True)
    header = [cell.strip() for cell in next(reader, [])]
    form = _form_of(header, table)
    columns = {name: place for place, name in enumerate(header)}
    kept: dict[str, tuple[list[str], str]] = {}
    left = {"unknown": 0, "other": 0}
    for cells in reader:
        source, row = f"{table}:{reader.line_num}", [cell.strip() for cell in cells]
        if not any(row):
            continue
        if len(row) != len(header) or not all(row):
            raise ValueError(f"{source}: a row is {','.join(header)}, got {','.join(row)!r:.80}")
        name, side = row[columns[PATH]], row[columns[SPLIT]].lower() if SPLIT in columns else ""
        values = [row[columns[column]] for column in form]
        if name in kept:
            raise ValueError(f"{source}: {name} is given twice")
        if SPLIT in columns and side not in _SIDES:
            left["other"] += 1
        elif not _is_known(values, form, source):
            left["unknown"] += 1
        else:
            kept[name] = (values, side)
    notes = [f"{counted(left['unknown'], 'picture')} of unknown {', '.join(form)} left out"] if left["unknown"] else []
    notes += [f"{counted(left['other'], 'picture')} of another split left out"] if left["other"] else []
    texts = [values for values, _ in kept.values()]
    if form == (LABEL,):
        targets, classes = _one_hot([values[0] for values in texts])
    else:
        targets = np.array(texts, np.float32).reshape(-1, len(form))
        targets = targets if form == VA else targets / targets.sum(1, keepdims=True)
        classes = () if form == VA else tuple(map(str, range(len(form))))
    held_out = np.array([_SIDES.get(side, False) for _, side in kept.values()], np.bool_)
    if SPLIT not in columns:
        drawn = np.random.default_rng(seed).permutation(len(kept))[: max(1, round(share * len(kept)))]
        held_out[drawn] = True
    found = Pictures(root, "va" if form == VA else "classes", classes, tuple(kept), targets, held_out, tuple(notes))
    _check_sides(found, str(table))
    return found


def read_views(pictures: Pictures, side_px: int, scratch: Path, most_bytes: int) -> Pictures:
    """The pictures with their `views` of a side in pixels, without those that cannot be read, which a note names.

    They lie in memory, or beyond `most_bytes` in the file `scratch`. Raises ValueError where none is left to learn
    from or to validate on; OSError where the file cannot be written.
    """
    shape = (len(pictures.names), side_px, side_px, 3)
    in_memory = int(np.prod(shape, dtype=np.int64)) <= most_bytes
    views = np.empty(shape, np.uint8) if in_memory else np.memmap(scratch, np.uint8, "w+", shape=shape)
    bad: dict[int, str] = {}

    def read(number: int) -> NDArray[np.uint8] | str:
        path = pictures.root / pictures.names[number]
        try:
            with Image.open(path) as picture:
                if picture.width * picture.height > _MOST_PIXELS:
                    return f"{picture.width} x {picture.height} pixels"
                upright = ImageOps.exif_transpose(picture).convert("RGB")
                return np.asarray(ImageOps.fit(upright, (side_px, side_px), Image.Resampling.BILINEAR))
        except _UNREADABLE as error:
            return "is not there" if isinstance(error, FileNotFoundError) else f"{type(error).__name__}: {error}"

    with warnings.catch_warnings(), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        warnings.simplefilter("ignore")  # of odd metadata; what matters is whether there is a picture
        numbers = iter(range(len(pictures.names)))
        while part := list(islice(numbers, _AT_ONCE)):
            for number, found in zip(part, pool.map(read, part), strict=True):
                if isinstance(found, str):
                    bad[number] = found
                else:
                    views[number] = found
    if not bad:
        return replace(pictures, views=views)
    named = preview([f"{pictures.names[number]} ({reason:.80})" for number, reason in bad.items()])
    note = f"{counted(len(bad), 'picture')} left out, since {'it' if len(bad) == 1 else 'they'} cannot be read: {named}"
    good = np.setdiff1d(np.arange(len(views)), list(bad))
    for to, number in enumerate(good):  # in place: they may be more than the memory holds
        views[to] = views[number]
    kept = replace(
        pictures,
        names=tuple(pictures.names[number] for number in good),
        targets=pictures.targets[good],
        held_out=pictures.held_out[good],
        notes=(*pictures.notes, note),
        views=views[: len(good)],
    )
    _check_sides(kept, str(pictures.root))
    return kept


def batches(indices: Sequence[int] | NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """The indices [N], so many at a time; a last one alone goes with those before it, since a CCC needs two."""
    order = np.asarray(indices, np.int64)
    ends = [*range(size, len(order) - 1, size), len(order)]
    begin = 0
    for end in ends:
        yield order[begin:end]
        begin = end


def turned(views: Tensor, generator: torch.Generator, degrees: float, flip: bool, cut_px: int) -> Tensor:
    """Views uint8 [N, px, px, 3], each turned by up to `degrees`, half of them mirrored, then cut: [N, cut, cut, 3].

    What turns into the picture from outside repeats its rim. Numbers are drawn on the CPU, whatever the device is.
    """
    count, side_px = views.shape[:2]
    drawn = torch.rand(4, count, generator=generator)
    angle = torch.deg2rad((2 * drawn[0] - 1) * degrees)
    mirror = torch.where(drawn[1] < 0.5, -1.0, 1.0) if flip else torch.ones(count)
    zero = torch.zeros(count)
    rows = (
        torch.stack([mirror * angle.cos(), -angle.sin(), zero], 1),
        torch.stack([mirror * angle.sin(), angle.cos(), zero], 1),
    )
    theta = torch.stack(rows, 1).to(views.device)
    faces = views.permute(0, 3, 1, 2).float()
    grid = F.affine_grid(theta, list(faces.shape), align_corners=False)
    moved = F.grid_sample(faces, grid, mode="bilinear", padding_mode="border", align_corners=False)
    moved = moved.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    places = side_px - cut_px + 1
    top, left = ((drawn[axis] * places).long().clamp(max=places - 1).to(views.device) for axis in (2, 3))
    window = torch.arange(cut_px, device=views.device)
    each = torch.arange(count, device=views.device)[:, None, None]
    return moved[each, (top[:, None] + window)[:, :, None], (left[:, None] + window)[:, None, :]]


def _form_of(header: Sequence[str], table: Path) -> tuple[str, ...]:
    """The columns of labels that a table has. Raises ValueError where it is none of those that are read."""
    soft = tuple(f"p_{number}" for number in range(sum(name.startswith("p_") for name in header)))
    for form in ((LABEL,), VA, soft):
        wanted = {PATH, *form}
        if len(header) == len(set(header)) and set(header) - {SPLIT} == wanted and form not in ((), ("p_0",)):
            return form
    raise ValueError(
        f"{table}:1: the first line is path,label or path,p_0,p_1,… or path,valence,arousal, perhaps with split; "
        f"got {','.join(header)!r:.80}"
    )


def _is_known(values: Sequence[str], form: tuple[str, ...], source: str) -> bool:
    """Whether a row says what there is to learn. Raises ValueError where it says something that cannot be."""
    if form == (LABEL,):
        return values[0] != _NO_CLASS
    try:
        numbers = [float(value) for value in values]
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    if form == VA and any(number in _UNKNOWN for number in numbers):
        return False
    fits = all(-1 <= n <= 1 for n in numbers) if form == VA else min(numbers) >= 0 and 0 < sum(numbers) < 1e9
    if not fits:
        rule = "within -1 and 1" if form == VA else "0 or more, and not all 0"
        raise ValueError(f"{source}: {', '.join(form)} are {rule}, got {', '.join(values)}")
    return True


def _one_hot(labels: Sequence[str]) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Targets [N, C] of classes by number, all from 0 to the largest, or by name, sorted."""
    by_number = all(label.isdecimal() and len(label) < 4 for label in labels)
    most = max((int(label) for label in labels), default=0) if by_number else 0
    classes = tuple(map(str, range(most + 1))) if by_number else tuple(sorted(set(labels)))
    places: Mapping[str, int] = {name: place for place, name in enumerate(classes)}
    numbers = [int(label) if by_number else places[label] for label in labels]
    return np.eye(len(classes), dtype=np.float32)[numbers], classes


def _check_sides(pictures: Pictures, source: str) -> None:
    to_train, held_out = int((~pictures.held_out).sum()), int(pictures.held_out.sum())
    if min(to_train, held_out) < 2:
        raise ValueError(
            f"{source}: {to_train} pictures to train on and {held_out} to validate on; two of each are needed"
        )
    if pictures.kind == "classes" and len(pictures.classes) < 2:
        raise ValueError(f"{source}: one class alone; there must be two to tell apart")
