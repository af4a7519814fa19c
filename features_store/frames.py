"""A trial in memory as xarray and pandas have it; both are optional.

    to_xarray    as `xarray.open_zarr(store, group=trial, consolidated=False)`, read at once and every chunk checked
    to_pandas    one row per frame under its time, one column per value, called as those of `avfuse export --to csv`

Tested by tests/features_store/test_frames.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..shell.text import check_known
from .arrays.zarr_array import dims_of
from .schema import TIME, VALID_SUFFIX

if TYPE_CHECKING:
    import pandas
    import xarray

    from .trial import Trial


def to_xarray(trial: Trial, features: Sequence[str] | None = None) -> xarray.Dataset:
    """Arrays over `frame`, with units and long names, `time` in s as a coordinate, and the trial's attributes.

    `features`: these and their masks alone. Raises ValueError where xarray is not installed or the trial has none of a
    feature, StoreMismatch where rows are broken.
    """
    try:
        import xarray  # noqa: PLC0415
    except ImportError as error:
        raise ValueError(f"to_xarray needs xarray: pip install 'avfuse[xarray]' ({error})") from error
    with trial.unchanged():
        arrays = {
            name: (dims_of(trial[name]), trial.read(name), trial[name].attrs.asdict())
            for name in _chosen(trial, features)
        }
    times = {TIME: arrays.pop(TIME)} if TIME in arrays else {}
    attributes = {name: value for name, value in trial.attributes.items() if name != "coordinates"}
    return xarray.Dataset(arrays, times, attributes)


def to_pandas(trial: Trial, features: Sequence[str] | None = None) -> pandas.DataFrame:
    """A table [T, columns] by `time` in s: `iresnet50_0` … `iresnet50_511`, `iresnet50_valid`, `face_landmarks_0_1` …

    `features`: these and their masks alone. Raises ValueError where pandas is not installed or the trial has none of a
    feature, StoreMismatch where rows are broken.
    """
    try:
        import pandas  # noqa: PLC0415
    except ImportError as error:
        raise ValueError(f"to_pandas needs pandas: pip install 'avfuse[pandas]' ({error})") from error
    with trial.unchanged():
        arrays = {name: trial.read(name) for name in _chosen(trial, features)}
    index = pandas.Index(arrays.pop(TIME), name=TIME) if TIME in arrays else pandas.RangeIndex(trial.rows, name="frame")
    tables = [pandas.DataFrame(index=index)]
    for name, rows in arrays.items():
        columns = ["_".join(map(str, (name, *at))) for at in np.ndindex(rows.shape[1:])]
        tables.append(pandas.DataFrame(rows.reshape(len(rows), len(columns)), index, columns))
    return pandas.concat(tables, axis=1)


def _chosen(trial: Trial, features: Sequence[str] | None) -> list[str]:
    if features is None:
        return list(trial)
    check_known(f"feature of trial {trial.name}", features, [name for name in trial if name != TIME])
    wanted = {TIME, *features, *(f"{name}{VALID_SUFFIX}" for name in features)}
    return [name for name in trial if name in wanted]
