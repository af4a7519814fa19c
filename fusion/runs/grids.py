"""Cells of a comparison: presets, features and settings, crossed; out of options, a grid of this table, or a YAML file.

    cells:                                  each is a row of the comparison …
      - {name: all, preset: tcn-transformer, set: {la_se: true}}
      - {name: without, preset: tcn-transformer, set: {la_se: false}}
    product:                                … and is crossed with each of these
      modalities: [[iresnet50, vggish], iresnet50]
      set: {lr: [1e-3, 1e-4]}

A cell that names no preset is made for each of --presets; --modalities replaces what a grid has.
Source: docs/sources.md (Grids). Tested by tests/fusion/runs/test_grids.py.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

from ...shell.text import did_you_mean, flat
from ..models.table import HEADS
from ..settings import preset, spelled

SUBSETS = "subsets"  # as the modalities of a product: each alone, each pair, all
RESERVED = ("s4-window",)  # a folder beside those of the cells
_S2_PARTS = ("la_se", "tcn", "transformer")
_S4_ROWS = {
    "attention": ("resnet50_ferplus", "senet50_ferplus", "clip_large", "eva02_large", "clip_large,wavlm_large"),
    "mfn": ("clip_large,wavlm_large", "eva02_large,wavlm_large"),
    "mctn": ("clip_large,wavlm_large", "eva02_large,wavlm_large"),
}

GRIDS: dict[str, dict[str, Any]] = {
    "s1-kernels": {"product": {"preset": ["crossattn"], "set": {"kernels": [[3], [5], [7], [3, 5, 7]]}}},
    "s2-table2": {
        "cells": [
            {
                "name": "+".join(chosen) or "none of them",
                "preset": "tcn-transformer",
                "set": {part: part in chosen for part in _S2_PARTS},
            }
            for count in range(len(_S2_PARTS) + 1)
            for chosen in combinations(_S2_PARTS, count)
        ]
    },
    "s4-table1": {
        "cells": [{"preset": name, "modalities": each} for name, features in _S4_ROWS.items() for each in features]
    },
    "modalities": {"product": {"modalities": SUBSETS}},
}

_KEYS = ("name", "preset", "modalities", "task", "set")
_UNSAFE = re.compile(r"[^\w.+=-]+", re.ASCII)
_MOST_LETTERS = 100


@dataclass(frozen=True)
class Cell:
    """One row of a comparison: its name, which is its folder's, a preset, and what it is trained with.

    `modalities`, `task`: None where the options, or the preset, decide. `settings`: as `--set` takes them.
    """

    name: str
    preset: str
    modalities: tuple[str, ...] | None = None
    task: str | None = None
    settings: tuple[tuple[str, str], ...] = ()


def load_grid(name: str) -> Mapping[str, Any]:
    """A grid of the table, or a file's. Raises ValueError on an unknown name and on what is not YAML; OSError."""
    if name in GRIDS:
        return GRIDS[name]
    path = Path(name).expanduser()
    if path.suffix.lower() not in (".yaml", ".yml") and not path.is_file():
        raise ValueError(
            f"there is no grid {name!r}{did_you_mean(name, GRIDS)}; there are {', '.join(GRIDS)}, or a YAML file"
        )
    import yaml  # noqa: PLC0415 - only where a file is read

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(flat(f"{path} cannot be read as YAML: {error}")) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold `cells:`, `product:` or both")
    return content


def cells_of(
    grid: Mapping[str, Any], presets: Sequence[str], sets: Sequence[tuple[str, ...]], source: str = "--grid"
) -> list[Cell]:
    """Every cell once, in order: those of the grid, crossed with its product, and with `presets` and `sets`.

    `sets`: lists of features, in place of those of the grid. Raises ValueError, naming `source`, on a grid that is not
    one, on a preset that this avfuse does not have, and on two cells of one name.
    """
    _check_keys(grid, ("cells", "product"), source)
    across: Any = grid.get("product") or {}
    _check_keys(across, _KEYS[1:], f"{source}, product")
    axes: list[list[tuple[str, str, Any]]] = []
    for key, values in across.items():
        if key == "set":
            _check_keys(values, (), f"{source}, set")
            axes += [[("set", name, value) for value in _listed(each)] for name, each in values.items()]
        else:
            axes.append([(key, key, value) for value in _listed(values)])
    cells: dict[str, Cell] = {}
    for row, point in product(_listed(grid.get("cells") or [{}]), product(*axes)):
        _check_keys(row, _KEYS, f"{source}, cells")
        own: dict[str, Any] = dict(row.get("set") or {})
        about = {key: value for key, value in row.items() if key != "set"}
        crossed = {name: value for place, name, value in point if place == "set"}
        fixed = {name: value for place, name, value in point if place != "set"}
        if twice := sorted({*own, *about} & {*crossed, *fixed}):
            raise ValueError(f"{source}: {', '.join(twice)} is in a cell and in the product")
        about |= fixed
        settings = tuple((str(key), spelled(value)) for key, value in {**own, **crossed}.items())
        shown = {**({} if "name" in row else own), **crossed}
        for preset_name in _presets_of(about, presets, source):
            for modalities in _modalities_of(about, preset_name, sets):
                parts = [str(row.get("name") or preset_name), *(["+".join(modalities)] if modalities else [])]
                parts += [f"task={about['task']}"] if "task" in about else []
                name = _folder_name("_".join([*parts, *(f"{key}={spelled(value)}" for key, value in shown.items())]))
                task = str(about["task"]) if "task" in about else None
                cell = Cell(name, preset_name, modalities, task, settings)
                if cells.setdefault(name, cell) != cell:
                    raise ValueError(f"{source}: two cells are called {name}; rename one of them")
    return list(cells.values())


def _presets_of(cell: Mapping[str, Any], presets: Sequence[str], source: str) -> list[str]:
    """The presets of a cell: its own, or those that are given."""
    if "preset" in cell and presets:
        raise ValueError(f"{source} names its presets: omit --presets")
    if "preset" not in cell and not presets:
        raise ValueError(f"{source} names no preset: give --presets")
    names = [str(cell["preset"])] if "preset" in cell else list(presets)
    if unknown := [name for name in names if name not in HEADS]:
        near = did_you_mean(unknown[0], HEADS)
        raise ValueError(f"{source}: this avfuse has no preset {unknown[0]!r}{near}; there are {', '.join(HEADS)}")
    return names


def _modalities_of(
    cell: Mapping[str, Any], preset_name: str, sets: Sequence[tuple[str, ...]]
) -> list[tuple[str, ...] | None]:
    """The lists of features of a cell; None: its preset's."""
    own = cell.get("modalities")
    if own == SUBSETS:
        found: dict[tuple[str, ...] | None, None] = {}
        for whole in sets or [preset(preset_name).modalities]:
            sizes = sorted({1, min(2, len(whole)), len(whole)})
            found |= dict.fromkeys(chosen for size in sizes for chosen in combinations(whole, size))
        return list(found)
    if sets or own is None:
        return list(sets) or [None]
    return [tuple(filter(None, map(str.strip, spelled(own).split(","))))]


def _folder_name(text: str) -> str:
    """A name in letters that every file system has; other texts have other names."""
    safe = _UNSAFE.sub("-", text).strip("-.") or "cell"
    if safe == re.sub(r"[ ,]", "-", text) and len(safe) <= _MOST_LETTERS and safe not in RESERVED:
        return safe
    return f"{safe[:_MOST_LETTERS]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _listed(values: Any) -> list[Any]:
    """A list as it is; anything else as a list of one."""
    return list(values) if isinstance(values, (list, tuple)) else [values]


def _check_keys(content: Any, known: Sequence[str], source: str) -> None:
    """Raise ValueError unless this is a map with these keys alone; any, if none is known."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{source} must hold `key: value` lines, got {content!r:.60}")
    if unknown := [str(key) for key in content if known and key not in known]:
        raise ValueError(f"{source}: unknown key {unknown[0]}{did_you_mean(unknown[0], known)}")
