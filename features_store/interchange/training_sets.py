"""A store as data sets that training loops of others read: Hugging Face's `datasets`, and webdataset.

    datasets      data-00000-of-00600.arrow …   one file per trial, one row per frame: trial, frame, time, iresnet50, …
                  state.json, dataset_info.json what `datasets.load_from_disk` looks for
                  attributes.json               {trial: its attributes}
    webdataset    shard-000000.tar …            a sample a stretch of a trial: <trial>/000300.iresnet50.npy …
                  index.json                    the shards and their samples, as `wids` reads them
                  attributes.json

A folder appears whole, under its name, or not at all. Memory holds a slice of a trial. Neither library is needed to
write them: Arrow's files are pyarrow's, tar files Python's own.
Tested by tests/features_store/interchange/test_training_sets.py.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ... import __version__
from ...shell.text import preview
from ..arrays.shard_reader import read_rows
from ..arrays.zarr_array import row_slices
from ..disk.unwritable import naming_place
from ..schema import TIME
from ..store import FeatureStore
from ..trial import Trial

if TYPE_CHECKING:
    import pyarrow

SAMPLE_ROWS = 300  # a window of `avfuse train`
SHARD_BYTES = 512 << 20
_BATCH_BYTES = 16 << 20
# Files that a format writes: only a folder that holds nothing else is ever replaced.
OWN_FILES = {
    "datasets": re.compile(r"data-\d+-of-\d+\.arrow|(state|dataset_info|attributes)\.json|cache-.*\.arrow"),
    "webdataset": re.compile(r"shard-\d+\.tar|(index|attributes)\.json"),
}


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """An empty folder beside `out` that takes its place at the end, and is removed where the writing failed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary, before = (out.with_name(f".{os.getpid()}.{os.urandom(6).hex()}") for _ in range(2))
    try:
        with naming_place(out, temporary):
            temporary.mkdir()
            yield temporary
            if out.exists():
                out.rename(before)
            temporary.rename(out)
    finally:
        for each in (temporary, before):
            shutil.rmtree(each, ignore_errors=True)


def to_datasets(store: FeatureStore, trials: Sequence[Trial], out: Path) -> None:
    """A folder for `datasets.load_from_disk`: one row per frame, of `trial`, `frame` (its number) and every array.

    A row of a feature [D] is a list of fixed length, one of [96, 64] a list of lists. The library works the types out
    from Arrow's. Raises ValueError where pyarrow is missing, or trials differ in their arrays.
    """
    try:
        import pyarrow  # noqa: PLC0415
    except ImportError as error:
        raise ValueError(f"datasets needs pyarrow: pip install 'avfuse[datasets]' ({error})") from error
    order = _common_arrays(trials)
    kept = [trial for trial in trials if trial.rows]
    with whole_folder(out) as folder:
        names = [f"data-{number:05d}-of-{len(kept):05d}.arrow" for number in range(len(kept))]
        for trial, name in zip(kept, names, strict=True):
            types = {array: _arrow_type(trial[array].shape[1:], trial[array].dtype) for array in order}
            schema = pyarrow.schema({"trial": pyarrow.string(), "frame": pyarrow.int64(), **types})
            row_bytes = sum(trial[array].nbytes for array in order) // trial.rows
            plain = trial.name.encode(errors="replace").decode()  # Arrow holds UTF-8 alone
            with pyarrow.OSFile(str(folder / name), "wb") as file, pyarrow.ipc.new_stream(file, schema) as stream:
                for rows in row_slices(trial.rows, max(1, min(1024, _BATCH_BYTES // max(row_bytes, 1)))):
                    frames = np.arange(rows.start, rows.stop)
                    columns = [pyarrow.array([plain] * len(frames)), pyarrow.array(frames)]
                    columns += [_arrow_column(read_rows(trial[array], rows)) for array in order]
                    stream.write_batch(pyarrow.record_batch(columns, schema=schema))
        checksums = json.dumps([[trial.name, trial.checksums] for trial in trials], sort_keys=True)
        state: dict[str, Any] = {
            "_data_files": [{"filename": name} for name in names],
            "_fingerprint": hashlib.sha256(checksums.encode()).hexdigest()[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        about = f"frame-synchronised features of {len(kept)} trials, exported by avfuse {__version__}"
        info = {"citation": "", "description": about, "homepage": "", "license": ""}
        for file_name, content in (("dataset_info.json", info), ("state.json", state)):
            (folder / file_name).write_text(json.dumps(content, indent=1))
        _write_attributes(folder, trials)


def _arrow_type(row_shape: tuple[int, ...], dtype: np.dtype[Any]) -> pyarrow.DataType:
    import pyarrow  # noqa: PLC0415

    kind = pyarrow.from_numpy_dtype(dtype)
    for size in reversed(row_shape):
        kind = pyarrow.list_(kind, size)
    return kind


def _arrow_column(rows: NDArray[Any]) -> pyarrow.Array:
    import pyarrow  # noqa: PLC0415

    column = pyarrow.array(rows.reshape(-1))
    for size in reversed(rows.shape[1:]):
        column = pyarrow.FixedSizeListArray.from_arrays(column, size)
    return column


def to_webdataset(
    store: FeatureStore,
    trials: Sequence[Trial],
    out: Path,
    sample_rows: int = SAMPLE_ROWS,
    most_bytes: int = SHARD_BYTES,
) -> None:
    """A folder of tar files of about 512 MB: a sample is `sample_rows` rows of a trial; its last one is what is left.

    A sample has `<array>.npy` for every array, and `json`: {trial, start, rows, of}: which rows of how many. Samples
    lie in the order of trials and time: the rows of a trial, put together, are the trial. Raises ValueError where
    trials differ in their arrays.
    """
    if sample_rows < 1:
        raise ValueError(f"a sample has at least 1 row, got {sample_rows}")
    order = _common_arrays(trials)
    samples = [(trial, rows) for trial in trials for rows in row_slices(trial.rows, sample_rows)]
    shards: list[dict[str, Any]] = []
    done = 0
    with whole_folder(out) as folder:
        while done < len(samples):
            shard: dict[str, Any] = {"url": f"shard-{len(shards):06d}.tar", "nsamples": 0}
            shards.append(shard)
            with tarfile.open(folder / shard["url"], "w") as tar:
                for trial, rows in samples[done:]:
                    place = {"start": rows.start, "rows": rows.stop - rows.start, "of": trial.rows}
                    members = {"json": json.dumps({"trial": trial.name, **place}).encode()}
                    for array in order:
                        content = io.BytesIO()
                        np.lib.format.write_array(content, read_rows(trial[array], rows), allow_pickle=False)
                        members[f"{array}.npy"] = content.getvalue()
                    for suffix, held in members.items():
                        # No time, no owner: the same rows make the same file.
                        member = tarfile.TarInfo(f"{trial.name}/{rows.start:06d}.{suffix}")
                        member.size = len(held)
                        tar.addfile(member, io.BytesIO(held))
                    shard["nsamples"] += 1
                    if tar.offset >= most_bytes:
                        break
            done += shard["nsamples"]
        index = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": out.name, "shardlist": shards}
        (folder / "index.json").write_text(json.dumps(index, indent=1))
        _write_attributes(folder, trials)


def _common_arrays(trials: Sequence[Trial]) -> list[str]:
    """Names of the arrays that every trial has, `time` first. Raises ValueError where trials differ in them."""
    described: dict[str, tuple[str, str]] = {}
    for trial in trials:
        if lacking := sorted(set(trials[0]) ^ set(trial)):
            text = f"trials {trials[0].name!r} and {trial.name!r} differ in what they have ({preview(lacking)})"
            raise ValueError(f"{text}; --features chooses what all have, --trials those that have it")
        for array in trial:
            shape = f"{list(trial[array].shape[1:])} of {trial[array].dtype}"
            first, before = described.setdefault(array, (trial.name, shape))
            if shape != before:
                raise ValueError(f"rows of {array} are {before} in trial {first!r}, and {shape} in {trial.name!r}")
    return sorted(described, key=lambda name: (name != TIME, name))


def _write_attributes(folder: Path, trials: Sequence[Trial]) -> None:
    attributes = {trial.name: trial.attributes for trial in trials}
    (folder / "attributes.json").write_text(json.dumps(attributes, indent=1))
