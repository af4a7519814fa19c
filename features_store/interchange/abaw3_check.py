"""Rows of an ABAW3 folder against a store of the same videos: by how many frames each array is shifted, with evidence.

    vggish    frame   0 1 2 3 …      S3's preprocessing loses the first row of VGGish:
              row     1 2 3 4 …      each row is that of the next frame, and the last one is repeated
    video     label   × × v v v …    and counts crops from the first frame on, whatever has a label:
              row         0 1 2 …    the face under the first label is that of frame 0

An array is laid over its counterpart in the store at each lag; the correlation r is over all rows and columns, each
column less its mean and over its deviation. Where the rows differ in width, or do not resemble each other at any lag
(other weights), their changes from frame to frame are compared: sound that changes moves any embedding of it.
Source: docs/sources.md (ABAW3 folders). Tested by tests/features_store/interchange/test_import_abaw3.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...shell.progress import Progress, silent
from ...shell.text import counted, text_table
from ..arrays.zarr_array import row_slices
from ..labels.corpus import Corpus
from ..store import FeatureStore
from ..trial import Trial
from .feature_files import read_blocks
from .import_abaw3 import Abaw3Trial, frames_of, stored_names

Verdict = Literal["in step", "one row early", "crops too early", "shifted", "unclear"]
# What of a store an array is compared with: the first of these that there is.
COUNTERPARTS = {
    "video": ("crop48",),
    "logmel": ("logmel",),
    "vggish": ("vggish", "logmel"),
    "egemaps": ("egemaps",),
    "mfcc": ("mfcc",),
    "bert": ("bert",),
}
MOST_LAG = 20
_LEAST_ROWS = 20
_RESEMBLES = {"rows": 0.5, "changes": 0.6}  # at less, changes of short clips pointed to wrong lags
_SIDE = 16  # to which pictures and patches are shrunk
_READ_ROWS = 1024

Rows = NDArray[np.float32]
_EXPLAINED: dict[Verdict, str] = {
    "one row early": "each row is that of the next frame: S3's preprocessing loses the first row of VGGish",
    "crops too early": "rows without a label are skipped, and crops are not: each face is of an earlier frame",
    "shifted": "the rows are those of other frames, for a reason that is not known here",
    "unclear": "the rows resemble the store's at no lag: other settings, another video, or too few rows",
}


@dataclass(frozen=True)
class Finding:
    """How an array lies against `compared_with` of the store: rows hold what is `lag` frames later than their label.

    `score` is the correlation there and `score_0` that without any lag, by `measure`; `rows`: how many are off, or were
    compared; `frames` [N]: of the fixed placing, the frame of each row. `blank`: rows of zeros.
    """

    trial: str
    array: str
    compared_with: str
    verdict: Verdict
    rows: int
    lag: int
    score: float
    score_0: float
    measure: Literal["rows", "changes"]
    blank: int
    frames: NDArray[np.int64] | None = None

    def as_json(self) -> dict[str, Any]:
        """Every word of it but the frames."""
        return {name: value for name, value in vars(self).items() if name != "frames"}


def check_abaw3(
    trials: Mapping[str, Abaw3Trial], store: FeatureStore, corpus: Corpus | None, progress: Progress[str] = silent
) -> tuple[list[Finding], list[str]]:
    """A finding for each array that the store has a counterpart of; and notes: what could not be compared.

    Memory holds one array of a trial, shrunk, and its counterpart. Raises what `frames_of` does.
    """
    stored = stored_names(store, trials)
    findings: list[Finding] = []
    notes = [f"{name}: {store.path} has no such trial" for name in trials if name not in stored]
    for name in progress(list(stored), "comparing"):
        trial, ours = trials[name], store[stored[name]]
        frames, _, note = frames_of(trial, corpus, ours.rows)
        notes += [note] if note else []
        for array in trial.arrays:
            feature = next((each for each in COUNTERPARTS[array] if each in ours), None)
            if feature is None:
                notes.append(f"{name}: {store.path} has no {COUNTERPARTS[array][0]} to compare {array} with")
                continue
            findings.append(_compare(trial, array, ours, feature, frames))
    return findings, notes


def _compare(trial: Abaw3Trial, array: str, ours: Trial, feature: str, frames: NDArray[np.int64]) -> Finding:
    """The lag at which an array resembles a feature best; of crops, whether they were counted from the first frame."""
    theirs = np.concatenate([shrunk(block.rows) for block in read_blocks(trial.path(array))])
    own = np.concatenate([shrunk(ours.window(feature, s.start, s.stop)) for s in row_slices(ours.rows, _READ_ROWS)])
    valid = ours.valid(feature)
    blank = np.logical_and(array == "video", np.all(theirs == 0, axis=1))
    counted_from_0 = np.arange(len(frames))
    moved = frames != counted_from_0
    measures: list[tuple[Literal["rows", "changes"], Rows, Rows]] = []
    if theirs.shape[1] == own.shape[1]:
        measures.append(("rows", theirs, own))
    measures.append(("changes", _changes(theirs, np.diff(frames) == 1), _changes(own, np.ones(len(own) - 1, np.bool_))))
    best = Finding(trial.name, array, feature, "unclear", len(frames), 0, np.nan, np.nan, "rows", int(blank.sum()))
    for measure, mine, its in measures:
        score_at = _scorer(mine, its, valid, ~blank)
        score_0 = score_at(frames)
        found: dict[str, Any] = {"measure": measure, "score_0": score_0}
        if array == "video" and moved.any():
            early, late = score_at(counted_from_0, moved), score_at(frames, moved)
            if early > _RESEMBLES[measure] and _is_clearer(early, late):
                lag = -int((frames - counted_from_0).max())
                words: dict[str, Any] = {"verdict": "crops too early", "rows": int(moved.sum()), "lag": lag}
                now = {**words, "score": early, "score_0": late, "frames": counted_from_0}
                return _changed(best, **{**found, **now})
        scores = {lag: score_at(frames + lag) for lag in range(-MOST_LAG, MOST_LAG + 1)}
        lag = max(scores, key=lambda each: (np.nan_to_num(scores[each], nan=-2.0), -abs(each)))
        if not scores[lag] > _RESEMBLES[measure]:
            if np.isfinite(scores[lag]):
                best = _changed(best, **found, score=scores[lag])
            continue
        lag = lag if _is_clearer(scores[lag], score_0) else 0
        verdict = "in step" if lag == 0 else "one row early" if (array, lag) == ("vggish", 1) else "shifted"
        place = frames + 1 if verdict == "one row early" else None
        return _changed(best, **found, verdict=verdict, lag=lag, score=scores[lag], frames=place)
    return best


def _changed(finding: Finding, **words: Any) -> Finding:
    return Finding(**{**vars(finding), **words})


def shrunk(rows: NDArray[Any]) -> Rows:
    """Rows [N, ...] as float32 [N, d]: pictures without colour, pictures and patches in about 16 × 16 blocks."""
    if rows.ndim == 4:
        rows = rows.mean(axis=3, dtype=np.float32)
    rows = rows.astype(np.float32)
    if rows.ndim == 3:
        high, wide = (max(1, size // _SIDE) for size in rows.shape[1:])
        rows = rows[:, : rows.shape[1] // high * high, : rows.shape[2] // wide * wide]
        blocks = rows.reshape(len(rows), rows.shape[1] // high, high, rows.shape[2] // wide, wide)
        rows = blocks.mean(axis=(2, 4))
    return rows.reshape(len(rows), -1)


def _changes(rows: Rows, follows: NDArray[np.bool_]) -> Rows:
    """How far each row is from the one before, [n, 1]; NaN for the first, and where that is not the frame before."""
    steps = np.linalg.norm(np.diff(_standard(rows), axis=0), axis=1)
    return np.concatenate([[np.nan], np.where(follows, steps, np.nan)]).astype(np.float32)[:, None]


def _standard(rows: Rows) -> Rows:
    """Each column less its mean, over its deviation; columns that never change are zeros."""
    deviation = np.nanstd(rows, axis=0)
    return np.asarray((rows - np.nanmean(rows, axis=0)) / np.where(deviation > 0, deviation, 1), np.float32)


def _scorer(theirs: Rows, ours: Rows, valid: NDArray[np.bool_], usable: NDArray[np.bool_]) -> Callable[..., float]:
    """Correlation of rows `theirs` [N, d] with those of `ours` [T, d] at given frames; NaN of too few rows."""
    a, b = _standard(theirs), _standard(ours)
    a_good, b_good = usable & np.isfinite(a).all(axis=1), valid & np.isfinite(b).all(axis=1)

    def score_at(frames: NDArray[np.int64], among: NDArray[np.bool_] | None = None) -> float:
        at = np.clip(frames, 0, len(b) - 1)
        good = a_good & (frames == at) & b_good[at]
        good = good if among is None else good & among
        if good.sum() < _LEAST_ROWS:
            return float("nan")
        x, y = _standard(a[good]), _standard(b[at[good]])
        power = float(np.sum(x * x)) * float(np.sum(y * y))
        return float(np.sum(x * y)) / power**0.5 if power else float("nan")

    return score_at


def _is_clearer(score: float, other: float) -> bool:
    """Whether one correlation is higher than another for more than noise: what it leaves open is a fifth less."""
    return not score <= other and not (1 - score) >= 0.8 * (1 - other)


def finding_lines(findings: Iterable[Finding]) -> list[str]:
    """A table with one line per array, and what the findings mean, each once."""
    rows = list(findings)
    cells = [["trial", "array", "finding", "compared with", "rows", "lag", "r", "r at 0"]]
    for each in rows:
        of = each.compared_with if each.measure == "rows" else f"changes of {each.compared_with}"
        scores = ["-" if np.isnan(score) else f"{score:.3f}" for score in (each.score, each.score_0)]
        lag = f"{each.lag:+d}" if each.lag else "0"
        cells.append([each.trial, each.array, each.verdict, of, str(each.rows), lag, *scores])
    lines = text_table(cells, words=4)
    several = Counter((each.array, each.verdict) for each in rows)
    for (array, verdict), count in several.items():
        if verdict in _EXPLAINED:
            lines.append(f"{array}, {counted(count, 'trial')}: {verdict}: {_EXPLAINED[verdict]}")
    if blank := sum(each.blank for each in rows):
        lines.append(f"video: {counted(blank, 'black row')}, where there was no crop; here they are not valid")
    return lines
