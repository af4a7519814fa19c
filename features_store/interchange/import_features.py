"""Features made elsewhere, one file per trial, into a store: beside its own, on the times of its frames.

    DIR/batch1/clip.npy   ─┐  examined whole, every one   ┌─ store/batch1/clip/NAME          float32 [T, …]
    DIR/other.csv         ─┴─ before anything is written ─┴─ store/batch1/clip/NAME_valid    bool [T]

Each file is read through once to say whether it can be taken, and again when it is written: memory holds a block of
it and its times. Tested by tests/features_store/interchange/test_import_features.py.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ... import __version__
from ...shell.progress import Progress, silent
from ...shell.text import check_known, counted, preview
from ..arrays.zarr_array import row_slices
from ..arrays.zarr_json import node_type
from ..claims.claims import claim
from ..clock import TOLERATED_ROWS
from ..disk.atomic import sha256_of
from ..entries import IMPORT, fingerprint_of, reserved_name
from ..labels.annotations import folder_levels
from ..schema import TIME, VALID_SUFFIX, JsonValue, StoreMismatch, plain_name, whole_trial
from ..store import FeatureStore
from ..trial import Trial
from .feature_files import BLOCK_BYTES, READERS, FeatureFileError, read_blocks
from .resampling import Resample, RowPlan, at_times, row_a_frame, rows_at

NonFinite = Literal["refuse", "invalid"]

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib")
# A face that is found late, or sound that ends early, moves one end of a file's times; a shift moves both.
SHIFT_S = 1.0
BEYOND_S = 5.0
_LEAST_COVERED = 0.5
_MOST_COLUMNS = 4096  # whose names are kept


@dataclass(frozen=True)
class ImportRequest:
    """What to import from `folder` under `name`, and how; `trials` None: all of the store.

    `tolerance_rows`: by how many rows a file without times may miss a trial's length; `rate_hz` and `start_s` give it
    times. `nan`: rows with numbers that are not finite in float32 are refused, or marked as not valid. `blank_invalid`:
    so are rows of zeros alone. `keep_type`: rows are stored as the file has them, and not as float32.
    Raises ValueError on a name that a feature cannot have, and on values out of range.
    """

    name: str
    folder: Path
    resample: Resample = "linear"
    tolerance_rows: int = TOLERATED_ROWS
    rate_hz: float | None = None
    start_s: float = 0.0
    nan: NonFinite = "refuse"
    trials: tuple[str, ...] | None = None
    replace: bool = False
    allow_missing: bool = False
    ignore_unknown: bool = False
    blank_invalid: bool = False
    keep_type: bool = False

    def __post_init__(self) -> None:
        if reason := reserved_name(self.name):
            raise ValueError(f"a feature cannot be called {self.name!r}: {reason}; choose another --name")
        if not _NAME.fullmatch(self.name):
            fault = "a name has letters, digits, '_', '-' and '.' only, and begins with a letter or digit"
            raise ValueError(f"a feature cannot be called {self.name!r}: {fault}")
        if self.resample not in get_args(Resample) or self.nan not in get_args(NonFinite):
            raise ValueError(f"resample is one of {get_args(Resample)}, nan one of {get_args(NonFinite)}")
        if self.tolerance_rows < 0 or not math.isfinite(self.start_s):
            raise ValueError(f"tolerance_rows {self.tolerance_rows}, start_s {self.start_s}")
        if self.rate_hz is not None and not 0 < self.rate_hz < math.inf:
            raise ValueError(f"rate_hz is a positive number, got {self.rate_hz}")
        if self.rate_hz is None and self.start_s:
            raise ValueError("start_s is the time of the first row at rate_hz, which is not given")


@dataclass(frozen=True)
class PlacedFile:
    """A file whose row j belongs to frame `frames[j]` of its trial: rising, int64 [N]."""

    path: Path
    frames: NDArray[np.int64]


@dataclass(frozen=True)
class ImportSummary:
    """Trials that were written, those of them that replaced rows, and those that were there alike; names, sorted.

    `missing`: trials without a file; `unknown`: files without a trial; `notes` are lines for the user. `rows` and
    `invalid_rows` count over what was written.
    """

    written: tuple[str, ...]
    replaced: tuple[str, ...]
    there: tuple[str, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    notes: tuple[str, ...]
    rows: int
    invalid_rows: int
    fingerprint: str | None


@dataclass(frozen=True)
class _Examined:
    """What a file came to on a trial's frames; `settings` are what changes its numbers."""

    path: Path
    row_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    settings: Mapping[str, JsonValue]
    source: Mapping[str, JsonValue]
    rows: int
    invalid_rows: int
    note: str

    def entry(self, name: str) -> dict[str, JsonValue]:
        """The feature's entry in its trial's attributes; trials of one import share the fingerprint."""
        identity: dict[str, JsonValue] = {"name": name, "made_from": IMPORT, "settings": dict(self.settings)}
        versions: dict[str, JsonValue] = {"avfuse": __version__, "numpy": np.__version__}
        kept: dict[str, JsonValue] = {**identity, "versions": versions, "source": dict(self.source)}
        return {
            "fingerprint": fingerprint_of(identity),
            **{word: value for word, value in kept.items() if word != "name"},
        }


def import_features(
    store: FeatureStore,
    request: ImportRequest,
    progress: Progress[str] = silent,
    *,
    dry_run: bool = False,
    placed: Mapping[str, PlacedFile] | None = None,
) -> ImportSummary:
    """Lay the rows of each file over the trial of its name; nothing is written unless every file can be taken.

    `placed`: {trial: its file, and which frame each row is of}, in place of what lies in the request's folder.
    What is there from the same file by the same settings is left alone; with `replace` only if it is whole. Raises
    ValueError with the names of trials without a file, files without a trial and files that cannot be taken;
    StoreMismatch where the trials hold other rows of that name, unless `replace`; OSError.
    """
    name = request.name
    frames: dict[str, NDArray[np.int64]] = {}
    if placed is None:
        files, missing, unknown, notes = _match(store, request)
    else:
        files, missing, unknown, notes = {trial: placed[trial].path for trial in sorted(placed)}, [], [], []
        frames = {trial: each.frames for trial, each in placed.items()}
    trials = {trial: store[trial] for trial in files}
    examined: dict[str, _Examined] = {}
    faults: list[str] = []
    for trial in progress(list(files), "checking"):
        try:
            examined[trial] = _examine(files[trial], trials[trial], request, frames.get(trial))[0]
        except FeatureFileError as error:
            faults.append(str(error))
    if faults:
        several = f"{len(faults)} of {counted(len(files), 'file')} cannot be taken, and nothing was imported: "
        raise FeatureFileError(
            (several if len(files) > 1 else "") + "; ".join(faults[:3]) + ("; …" if faults[3:] else "")
        )
    _check_alike(store, request, examined)
    there: list[str] = []
    held: list[str] = []
    for trial, found in examined.items():
        known, now = trials[trial].entries.get(name, {}), found.entry(name)
        if known.get("made_from") not in (None, IMPORT):
            raise StoreMismatch(f"{name!r} of trial {trial!r} was extracted, not imported; choose another --name")
        if name in trials[trial]:
            same = all(known.get(word) == now[word] for word in ("fingerprint", "source"))
            same = same and not (request.replace and not trials[trial].is_whole(name, f"{name}{VALID_SUFFIX}"))
            (there if same else held).append(trial)
    if held and not request.replace:
        raise StoreMismatch(
            f"{store.path} holds other rows called {name!r} in {counted(len(held), 'trial')} ({preview(held)}): "
            "--replace does these anew; or choose another --name"
        )
    written = [trial for trial in examined if trial not in there]
    for trial in progress(written, "importing") if not dry_run else ():
        _write(store, trial, examined[trial], request, frames.get(trial))
    notes += [f"{trial}: {found.note}" for trial, found in examined.items() if found.note]
    return ImportSummary(
        written=tuple(written),
        replaced=tuple(held),
        there=tuple(there),
        missing=tuple(missing),
        unknown=tuple(unknown),
        notes=tuple(notes),
        rows=sum(examined[trial].rows for trial in written),
        invalid_rows=sum(examined[trial].invalid_rows for trial in written),
        fingerprint=next((str(found.entry(name)["fingerprint"]) for found in examined.values()), None),
    )


def _match(store: FeatureStore, request: ImportRequest) -> tuple[dict[str, Path], list[str], list[str], list[str]]:
    """{trial: its file}, sorted; trials without a file, files without a trial, notes.

    Names are compared as `plain_name` has them. Raises ValueError where there are such and they are not let pass.
    """
    stored: dict[str, str] = {}
    for trial in store.trials():
        if stored.setdefault(plain_name(trial), trial) != trial:
            raise ValueError(f"trials {stored[plain_name(trial)]!r} and {trial!r} differ in spelling only; remove one")
    files: dict[str, Path] = {}
    others: list[str] = []
    for path in _files_below(request.folder):
        if path.suffix.lower() not in READERS:
            others.append(path.relative_to(request.folder).as_posix())
            continue
        plain = plain_name(path.relative_to(request.folder).with_suffix("").as_posix())
        if files.setdefault(plain, path) != path:
            raise ValueError(f"trial {plain!r} has two files: {files[plain]} and {path}; remove one")
    if not files:
        pickles = [name for name in others if name.lower().endswith(_PICKLES)]
        why = f" ({preview(pickles)} is pickled, which is never read)" if pickles else ""
        raise ValueError(f"{request.folder} holds no file TRIAL{', TRIAL'.join(READERS)}{why}")
    if request.trials is not None:
        check_known("trial", request.trials, list(stored.values()))
    wanted = {plain: trial for plain, trial in stored.items() if request.trials is None or trial in request.trials}
    missing = sorted(trial for plain, trial in wanted.items() if plain not in files)
    unknown = sorted(
        path.relative_to(request.folder).as_posix() for plain, path in files.items() if plain not in stored
    )
    notes = [f"left alone, being of another kind: {preview(others)}"] if others else []
    if unknown and not request.ignore_unknown:
        try:
            check_known("trial", [plain for plain in files if plain not in stored], list(stored.values()))
        except ValueError as error:  # with the nearest name
            text = f"{counted(len(unknown), 'file')} in {request.folder} cannot be matched to a trial of {store.path}"
            raise ValueError(f"{text}: {error}; --ignore-unknown leaves them alone") from None
    if missing and not request.allow_missing:
        text = f"{counted(len(missing), 'trial')} of {store.path} {'has' if len(missing) == 1 else 'have'} no file"
        fix = "--allow-missing leaves them without it; --trials names those that have one"
        raise ValueError(f"{text} in {request.folder}: {preview(missing)}; {fix}")
    matched = {wanted[plain]: path for plain, path in files.items() if plain in wanted}
    return dict(sorted(matched.items())), missing, unknown, notes


def _files_below(folder: Path) -> Iterator[Path]:
    """Every file below, sorted, but hidden ones and those in hidden folders. Raises OSError without `folder`."""
    hidden: set[Path] = set()
    for level in ([folder], *folder_levels(folder)):
        for each in level:
            if each != folder and (each.name.startswith(".") or each.parent in hidden):
                hidden.add(each)
                continue
            for name in sorted(os.listdir(each)):
                path = each / name
                if not name.startswith(".") and (path.is_file() or not path.exists()):  # a link to nowhere is an error
                    yield path


def _examine(
    path: Path, trial: Trial, request: ImportRequest, frames: NDArray[np.int64] | None = None
) -> tuple[_Examined, RowPlan, NDArray[np.bool_]]:
    """Read a file whole: what it is, its plan on the trial's frames, and which of its rows are finite, bool [N].

    Raises FeatureFileError on what cannot be taken, with the row and column.
    """
    flags: list[NDArray[np.bool_]] = []
    times: list[NDArray[np.float64]] = []
    read, block = 0, None
    for block in read_blocks(path):
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and is not finite below
            finite = np.isfinite(block.rows.astype(np.float32)).reshape(len(block.rows), -1)
        flags.append(np.all(finite, axis=1))
        if request.blank_invalid:
            flags[-1] &= block.rows.reshape(len(block.rows), -1).any(axis=1)
        if request.nan == "refuse" and not finite.all():
            row, column = (int(at) for at in np.argwhere(~finite)[0])
            word = block.columns[column] if block.columns else f"column {column}"
            value = block.rows.reshape(len(block.rows), -1)[row, column]
            fix = "--nan invalid marks such rows as not valid, and repeats the row before"
            raise FeatureFileError(f"{path}: row {read + row}, {word} is {value}, not a number of float32; {fix}")
        if block.time_s is not None:
            times.append(block.time_s)
        read += len(block.rows)
    good = np.concatenate(flags) if flags else np.zeros(0, np.bool_)
    if block is None or not (good.any() or request.blank_invalid):  # of blank rows alone: all are there, none is valid
        raise FeatureFileError(f"{path} has no {'finite ' if read else ''}row")
    if not trial.rows or TIME not in trial:
        raise FeatureFileError(f"{path}: trial {trial.name!r} of the store has no frames")
    if block.time_s is not None and request.rate_hz is not None:
        raise FeatureFileError(f"{path} has times of its own; leave out --rate")
    note = ""
    if frames is not None:
        if len(frames) != read:
            raise FeatureFileError(
                f"{path} has {counted(read, 'row')}, and those of {counted(len(frames), 'frame')} are known"
            )
        plan = rows_at(frames, good, trial.rows)
    elif block.time_s is None and request.rate_hz is None:
        if abs(read - trial.rows) > request.tolerance_rows:
            fix = "--tolerance takes more, --rate HZ says how many rows a second has"
            fault = (
                f"{counted(read, 'row')}, and trial {trial.name!r} {trial.rows}: "
                "one row per frame is needed without times"
            )
            raise FeatureFileError(f"{path} has {fault}; {fix}")
        plan = row_a_frame(good, trial.rows)
        if read != trial.rows:
            note = f"{counted(read, 'row')} for {counted(trial.rows, 'frame')}"
            note += "; those at the end are left out" if read > trial.rows else "; the last one is repeated"
    else:
        source_s = np.concatenate(times) if times else request.start_s + np.arange(read) / (request.rate_hz or 1.0)
        note = _check_times(path, source_s, trial)
        plan = at_times(source_s, trial.time_s, request.resample, good)
    of_file: dict[str, JsonValue] = {
        **{"name": path.name, "size": path.stat().st_size, "sha256": sha256_of(path)},
        **({} if frames is None else {"frames": hashlib.sha256(frames.astype("<i8").tobytes()).hexdigest()}),
    }
    settings: dict[str, JsonValue] = {
        "resample": request.resample,
        "tolerance_rows": request.tolerance_rows,
        "rate_hz": request.rate_hz,
        "start_s": request.start_s,
        "nan": request.nan,
        "times": "file" if times else "frames" if request.rate_hz is None else "rate",
        **{word: True for word in ("blank_invalid", "keep_type") if getattr(request, word)},
    }
    if 0 < len(block.columns) <= _MOST_COLUMNS:
        settings["columns"] = list(block.columns)
    invalid = int(np.sum(~plan.valid))
    shape, dtype = block.rows.shape[1:], block.rows.dtype
    return _Examined(path, shape, dtype, settings, of_file, trial.rows, invalid, note), plan, good


def _check_times(path: Path, source_s: NDArray[np.float64], trial: Trial) -> str:
    """A note where a file reaches less than half of the frames.

    Raises FeatureFileError where its times do not rise, or are not of this trial: they do not overlap, both ends lie
    more than 1 s to the same side, or they last more than twice as long, and by 5 s.
    """
    if not np.isfinite(source_s).all():
        raise FeatureFileError(
            f"{path}: the time of row {int(np.argmin(np.isfinite(source_s)))} is not a finite number"
        )
    if (np.diff(source_s) <= 0).any():
        row = int(np.argmax(np.diff(source_s) <= 0)) + 1
        times = f"{source_s[row]:.6g} s, the row before has {source_s[row - 1]:.6g} s"
        raise FeatureFileError(f"{path}: times must rise, and row {row} has {times}")
    time_s = trial.time_s
    begin_s, end_s = source_s[0] - time_s[0], source_s[-1] - time_s[-1]
    of_file, of_trial = (f"from {each[0]:.6g} to {each[-1]:.6g} s" for each in (source_s, time_s))
    both = f"{of_file}, trial {trial.name!r} {of_trial}"
    length_s = time_s[-1] - time_s[0]
    if source_s[-1] - source_s[0] > length_s + max(BEYOND_S, length_s) and not trial.attributes.get("truncated"):
        fault = "it goes on for much longer; are its times in s?"
    elif source_s[-1] < time_s[0] or source_s[0] > time_s[-1]:
        fault = f"they do not overlap; the file begins {begin_s:+.3f} s from the trial's first frame"
    elif min(begin_s, end_s) > SHIFT_S or max(begin_s, end_s) < -SHIFT_S:
        fault = f"it is shifted: it begins {begin_s:+.3f} s and ends {end_s:+.3f} s from the trial's frames"
    else:
        covered = float(np.mean((time_s >= source_s[0]) & (time_s <= source_s[-1])))
        return f"its times reach {covered:.0%} of the frames only: {both}" if covered < _LEAST_COVERED else ""
    raise FeatureFileError(f"{path} has times {both}: {fault}")


def _check_alike(store: FeatureStore, request: ImportRequest, examined: Mapping[str, _Examined]) -> None:
    """Raise ValueError where files differ in what they hold, or from what other trials hold under this name.

    StoreMismatch where a trial cannot have an array of that name.
    """
    names = {"f": "floats", "i": "integers", "u": "integers", "b": "true and false"}
    if not examined:
        return
    one = next(iter(examined.values()))
    for other in examined.values():
        columns = [found.settings.get("columns") for found in (one, other)]
        sets = [set(map(str, each)) if isinstance(each, list) else set() for each in columns]
        pairs = {
            "the shape of a row": [str(list(found.row_shape)) for found in (one, other)],
            "the kind of numbers": [names[found.dtype.kind] for found in (one, other)],
            "where times come from (file, frames or rate)": [str(found.settings["times"]) for found in (one, other)],
            "columns": [preview(sorted(mine - its)) or "the same" for mine, its in (sets, sets[::-1])],
            "the order of columns": ["", ""] if columns[0] == columns[1] else ["one", "another"],
        }
        for what, (first, second) in pairs.items():
            if first != second:
                raise ValueError(f"files differ in {what}: {first} in {one.path}, {second} in {other.path}")
    for trial in examined:
        if node_type(store.files, f"{trial}/{request.name}") == "group":
            fault = f"a trial of that name lies in {store.files.location(trial)}"
            raise StoreMismatch(
                f"trial {trial!r} cannot have a feature {request.name!r}: {fault}; choose another --name"
            )
    kept = next((trial for trial in store.values() if trial.name not in examined and request.name in trial), None)
    if kept and kept[request.name].shape[1:] != one.row_shape:
        there = f"{list(kept[request.name].shape[1:])} in trial {kept.name!r} of {store.path}"
        raise StoreMismatch(f"rows of {request.name!r} are {there}, and {list(one.row_shape)} in {one.path}")


def _write(
    store: FeatureStore,
    trial: str,
    examined: _Examined,
    request: ImportRequest,
    frames: NDArray[np.int64] | None = None,
) -> None:
    """Lay a file's rows over its trial. Raises StoreMismatch where the file, or the trial, has changed meanwhile."""
    video = whole_trial(trial)  # the faces of a video are claimed together
    owner = video if "faces" in (store.attributes(video) or {}) else trial
    with claim(store.path, owner) as mine:
        if not mine:
            raise StoreMismatch(f"trial {owner!r} is being processed by another run; import again when it has ended")
        now, plan, good = _examine(examined.path, store[trial], request, frames)
        if now != examined:
            raise StoreMismatch(f"{examined.path}, or trial {trial!r}, has changed since it was examined; import again")
        dtype = examined.dtype if request.keep_type else np.dtype(np.float32)
        rows = _PlannedRows(examined.path, plan, good, examined.row_shape, dtype)
        name = request.name
        store.add(trial, {name: rows, f"{name}{VALID_SUFFIX}": plan.valid}, {name: now.entry(name)})


class _PlannedRows:
    """Rows of a file as a plan has them, [T, ...], made when they are read: a RowSource, to be read in order.

    In memory are two blocks, and the last good row before them, which may be repeated for long.
    """

    def __init__(
        self, path: Path, plan: RowPlan, good: NDArray[np.bool_], row_shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self.dtype = dtype
        self.shape = (len(plan.valid), *row_shape)
        self._path, self._plan, self._good = path, plan, good
        self._made = 0
        self._blocks: Iterator[NDArray[np.float64]] = iter(())

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        """Rows [start, stop). Raises FeatureFileError where the file is broken meanwhile."""
        if rows.start != self._made or rows.start == 0:
            if rows.start:
                raise ValueError(f"rows of {self._path} come in order: {self._made} is next, not {rows.start}")
            self._start, self._block = 0, np.zeros((0, *self.shape[1:]))
            self._before = np.zeros(self.shape[1:])
            self._blocks = (block.rows.astype(np.float64) for block in read_blocks(self._path))
        out = np.empty((rows.stop - rows.start, *self.shape[1:]), self.dtype)
        step = max(1, BLOCK_BYTES // (8 * math.prod(self.shape[1:])))
        for part in row_slices(len(out), step):
            out[part] = self._make(rows.start + part.start, rows.start + part.stop)
        self._made = rows.stop
        return out

    def _make(self, start: int, stop: int) -> NDArray[np.float64]:
        """The sum of weighted rows of the file for each row [start, stop) of the trial, block after block."""
        made = np.zeros((stop - start, *self.shape[1:]))
        pairs = slice(*np.searchsorted(self._plan.row, [start, stop]))
        row, source, weight = (each[pairs] for each in (self._plan.row, self._plan.source, self._plan.weight))
        weight = weight.reshape(-1, *(1 for _ in self.shape[1:]))
        early = source < self._start
        made[row[early] - start] += weight[early] * self._before
        while True:
            current = np.flatnonzero((source >= self._start) & (source < self._start + len(self._block)))
            if len(current):
                parts = weight[current] * self._block[source[current] - self._start]
                firsts = np.flatnonzero(np.diff(row[current], prepend=-1))  # rows of the trial rise
                made[row[current][firsts] - start] += np.add.reduceat(parts, firsts)
            if source.max(initial=-1) < self._start + len(self._block):
                return made
            good = np.flatnonzero(self._good[self._start : self._start + len(self._block)])
            if len(good):
                self._before = self._block[good[-1]].copy()
            self._start += len(self._block)
            block = next(self._blocks, None)
            if block is None:
                raise FeatureFileError(f"{self._path} ends sooner than before; import again")
            self._block = block
