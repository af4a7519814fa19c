"""A folder of ABAW3's preprocessing (`compacted_48`) into a store: its arrays as features, each row at its own frame.

    DIR/…/<trial>/video.npy                   uint8 [N, 48, 48, 3]    abaw3_video, black rows not valid
                  logmel.npy                  float16 [N, 96, 64]     abaw3_logmel
                  vggish, egemaps, mfcc, bert .npy [N, D]             abaw3_vggish …
                  VA_continuous_label.npy     [N, 2]

    frame     0   1   2   3   4   5   6       N rows: those of frames whose label is not -5,
    label    -5  -5   v   v  -5   v   v       so row 0 belongs to frame 2, row 1 to 3, row 2 to 5, row 3 to 6
    row               0   1       2   3

`dataset_info.pkl` and `mean_std_info.pkl` beside are pickles, which may run any code, and are never opened: how long a
trial is stands in its arrays, and which set it is of in the annotations.
Source: docs/sources.md (ABAW3 folders). Tested by tests/features_store/interchange/test_import_abaw3.py.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...shell.progress import Progress, silent
from ...shell.text import counted, preview
from ..clock import are_others
from ..entries import ABAW3_PREFIX, CLOCK, entry_of
from ..labels.corpus import Corpus, by_label_name, label_name, labels_of
from ..schema import TIME, JsonValue, plain_name
from ..store import FeatureStore
from .feature_files import FeatureFileError
from .import_features import ImportRequest, ImportSummary, PlacedFile, import_features

ARRAYS = ("video", "logmel", "vggish", "egemaps", "mfcc", "bert")
LABELS = "VA_continuous_label"
NOMINAL_HZ = 30.0
_SAME_LABEL = 1e-3


@dataclass(frozen=True)
class Abaw3Trial:
    """A trial's folder: which arrays it has, all of N = `rows`, and its labels float32 [N, 2], if they are there."""

    name: str
    folder: Path
    arrays: tuple[str, ...]
    rows: int
    labels: NDArray[np.float32] | None

    def path(self, array: str) -> Path:
        """The file of one array."""
        return self.folder / f"{array}.npy"


@dataclass(frozen=True)
class Abaw3Summary:
    """Trials that were made anew, with nominal times, and what became of each feature; `notes` are for the user."""

    made: tuple[str, ...]
    features: Mapping[str, ImportSummary]
    notes: tuple[str, ...]


def find_trials(root: Path) -> dict[str, Abaw3Trial]:
    """{trial: its folder} of all folders below that have such arrays, by name. Only headers and labels are read.

    Raises ValueError where there is none, two have one name, or the arrays of one differ in their rows;
    FeatureFileError on a file that is not of plain numbers.
    """
    found: dict[str, Abaw3Trial] = {}
    for parent, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        arrays = tuple(name for name in ARRAYS if f"{name}.npy" in files)
        if not arrays:
            continue
        folder = Path(parent)
        rows: dict[str, int] = {}
        for name in (*arrays, *([LABELS] if f"{LABELS}.npy" in files else [])):
            array = _mapped(folder / f"{name}.npy")
            rows[name] = len(array)
            labels = np.array(array, np.float32) if name == LABELS else None
        if len(set(rows.values())) > 1:
            counts = ", ".join(f"{name} {count}" for name, count in rows.items())
            raise ValueError(f"the arrays in {folder} differ in their rows ({counts}); they are not of one trial")
        if labels is not None and labels.shape[1:] != (2,):
            raise ValueError(
                f"{folder / LABELS}.npy has the shape {list(labels.shape)}; valence and arousal are [N, 2]"
            )
        trial = Abaw3Trial(plain_name(folder.name), folder, arrays, rows[arrays[0]], labels)
        if (other := found.setdefault(trial.name, trial)) is not trial:
            raise ValueError(f"trial {trial.name!r} has two folders: {other.folder} and {folder}; name one of them")
    if not found:
        raise ValueError(f"{root} holds no folder <trial>/{ARRAYS[0]}.npy, or another of {', '.join(ARRAYS)}")
    return found


def _mapped(path: Path) -> NDArray[np.generic]:
    """An array of a file, mapped into memory. Raises FeatureFileError on a pickle, and on what is cut off."""
    try:
        array: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, SyntaxError) as error:
        raise FeatureFileError(
            f"{path} is not an array of plain numbers, or cut off ({error}); make it again"
        ) from error
    if array.ndim < 2 or array.dtype.kind not in "fiu":
        raise FeatureFileError(
            f"{path} holds {list(array.shape)} of {array.dtype}; one row per frame is needed, [N, D]"
        )
    return array


def stored_names(store: FeatureStore, names: Collection[str]) -> dict[str, str]:
    """{trial of the folder: its name in the store}: the whole name, else the last part of one; of those that are there.

    Raises ValueError where several trials of the store end alike.
    """
    stored, several = by_label_name(store.trials())
    if ambiguous := next((name for name in names if name in several), None):
        raise ValueError(f"{store.path} has several trials called {ambiguous!r}: {preview(several[ambiguous])}")
    return {name: stored[name] for name in names if name in stored}


def frames_of(trial: Abaw3Trial, corpus: Corpus | None, length: int | None) -> tuple[NDArray[np.int64], int, str]:
    """Which frame each of a trial's rows is of, int64 [N]; of how many; and a note, or nothing.

    With labels the rows are those of the frames that have one; without, all of the `length` frames of the store.
    Raises ValueError where numbers of rows do not fit.
    """
    name = label_name(corpus, trial.name) if corpus else None
    if corpus is not None and name is not None:
        track = labels_of(corpus, name, None)
        annotated = np.flatnonzero(track.valid)
        if len(annotated) != trial.rows:
            text = f"{counted(trial.rows, 'row')}, and {corpus.files[name]} {counted(len(annotated), 'labelled frame')}"
            raise ValueError(f"{trial.folder} has {text}; are these its labels?")
        note = ""
        if trial.labels is not None:
            differ = int((np.abs(trial.labels - track.values[annotated]) > _SAME_LABEL).any(axis=1).sum())
            text = f"{trial.name}: {differ} of {counted(trial.rows, 'label')} differ from those of {corpus.files[name]}"
            note = text if differ else ""
        return annotated, length if length is not None else len(track.valid), note
    if length is not None and are_others(trial.rows, length):
        text = f"{counted(trial.rows, 'row')} for {counted(length, 'frame')} of the store"
        raise ValueError(f"{trial.folder} has {text}: which of them have a label? --annotations says so")
    return np.arange(trial.rows), length if length is not None else trial.rows, ""


def import_abaw3(
    store: FeatureStore,
    trials: Mapping[str, Abaw3Trial],
    corpus: Corpus | None = None,
    rate_hz: float = NOMINAL_HZ,
    moved: Mapping[tuple[str, str], NDArray[np.int64]] | None = None,
    replace: bool = False,
    progress: Progress[str] = silent,
) -> Abaw3Summary:
    """Lay every array over the trial of its name, as feature `abaw3_<array>`; trials that are not there are made.

    Such a trial has the times row / `rate_hz`, since the folder knows none. `moved`: {(trial, array): the frame of each
    row} where a check has found another one than its labels'. With `replace`, such times that are broken are made anew.
    Raises what `frames_of` and `import_features` do.
    """
    stored = stored_names(store, trials)
    frames: dict[str, NDArray[np.int64]] = {}
    notes: list[str] = []
    lengths: dict[str, int] = {}
    for name, trial in trials.items():
        known = store[stored[name]].rows if name in stored else None
        frames[name], lengths[name], note = frames_of(trial, corpus, known)
        notes += [note] if note else []
    made = [name for name in trials if name not in stored]
    for name in progress(made, "making trials"):
        about: dict[str, JsonValue] = {
            "fps": f"{rate_hz:g}",
            "source": {"name": trials[name].folder.name},
            "warnings": [f"its times are nominal, a row every 1/{rate_hz:g} s: the video was not read"],
            "features": {CLOCK: entry_of(CLOCK, 1, {"nominal_rate_hz": rate_hz}, None, None, {})},
        }
        store.write(name, {TIME: np.arange(lengths[name]) / rate_hz}, about)
        stored[name] = name
    for name in stored if replace else ():
        there = store[stored[name]]
        clock = there.entries.get(CLOCK, {})
        own_rate_hz = clock.get("settings", {}).get("nominal_rate_hz")
        if own_rate_hz is not None and not there.is_whole(TIME):
            store.add(there.name, {TIME: np.arange(there.rows) / own_rate_hz}, {CLOCK: clock})
            notes.append(f"{there.name}: its times were broken, and are made anew")
    features: dict[str, ImportSummary] = {}
    for array in ARRAYS:
        placed = {}
        for name, trial in trials.items():
            if array in trial.arrays:
                placed[stored[name]] = PlacedFile(trial.path(array), (moved or {}).get((name, array), frames[name]))
        if placed:
            is_picture = array == "video"
            request = ImportRequest(
                name=f"{ABAW3_PREFIX}{array}",
                folder=next(iter(trials.values())).folder.parent,
                replace=replace,
                blank_invalid=is_picture,
                keep_type=is_picture,
            )
            features[request.name] = import_features(store, request, progress, placed=placed)
    return Abaw3Summary(tuple(made), features, tuple(notes))
