"""One file per trial, named as the store names it: `OUT/<trial>.txt`, comma-separated, one row per frame.

    time_s,valence,arousal,valid
    0.040000,0.123456,-0.200000,1

Tested by tests/fusion/results/test_prediction_files.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...features_store.disk.atomic import replace_file
from ...features_store.schema import check_trial_name
from ...shell.text import counted

DECIMALS = 6


def trial_path(folder: Path, trial: str, suffix: str) -> Path:
    """File of a trial below `folder`: `batch1/10-60` with `.txt` lies in its folder, `batch1/10-60.txt`.

    Raises ValueError on a name that points out of the folder.
    """
    check_trial_name(trial)
    return folder / f"{trial}{suffix}"


def write_prediction(
    folder: Path,
    trial: str,
    columns: Sequence[str],
    values: NDArray[Any],
    time_s: NDArray[np.float64],
    valid: NDArray[np.bool_],
    limits: tuple[float, float] = (-1.0, 1.0),
    suffix: str = ".txt",
) -> Path:
    """Write `values` [T, C] of the `columns` whole, over an earlier file; returns the file.

    `time_s` [T] are the frames' times, s; `valid` bool [T] is false where no feature of the row was computed from
    real media. Six decimals, values clipped to the `limits`. Raises ValueError on a name that points out of the folder,
    another shape, or a value that is not a number.
    """
    path = trial_path(folder, trial, suffix)
    rows = writable(trial, values, len(columns), limits)
    if not len(rows) == len(time_s) == len(valid):
        raise ValueError(f"{trial}: {len(rows)} predictions, {len(time_s)} times and {len(valid)} flags")
    line = f"%.{DECIMALS}f,{','.join([f'%.{DECIMALS}f'] * len(columns))},%d"
    every = zip(time_s.tolist(), rows.tolist(), valid.tolist(), strict=True)
    header = ",".join(["time_s", *columns, "valid"])
    text = "\n".join([header, *(line % (at_s, *row, real) for at_s, row, real in every), ""])
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, text.encode())
    return path


def read_prediction(path: Path) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """The columns and the values [T, C] of a file that `write_prediction` has written.

    Raises ValueError if it is not such a file, OSError if it cannot be read.
    """
    with path.open(encoding="utf-8") as file:
        columns = file.readline().strip().split(",")
        try:
            values = np.loadtxt(file, delimiter=",", ndmin=2)
        except ValueError as error:
            raise ValueError(f"{path} does not hold predictions: {error}") from error
    if len(columns) < 3 or (columns[0], columns[-1]) != ("time_s", "valid") or values.shape[1] != len(columns):
        raise ValueError(f"{path} does not hold predictions: its first line is {','.join(columns)!r:.60}")
    return tuple(columns[1:-1]), values[:, 1:-1]


def writable(
    trial: str, values: NDArray[Any], width: int, limits: tuple[float, float] = (-1.0, 1.0)
) -> NDArray[np.float64]:
    """`values` [T, width] clipped to the `limits` and rounded to the decimals of the files; no zero is negative.

    Raises ValueError on another shape, or a value that is not a number.
    """
    if values.ndim != 2 or values.shape[1] != width:
        raise ValueError(f"{trial}: a prediction is an array [T, {width}], got the shape {values.shape}")
    broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(broken):
        raise ValueError(
            f"{trial}: {len(broken)} of {counted(len(values), 'row')} not finite, the first is row {broken[0]}"
        )
    clipped: NDArray[np.float64] = np.clip(values.astype(np.float64), *limits)
    return clipped.round(DECIMALS) + 0.0
