"""The store's contract: words and layout on disk, and the types that cross its door. Arithmetic, no files.

    array                        one row per frame
    ├─ shard  ≤ 64 MB            one file, written once
    │  ├─ chunk ≈ 1 MB           whole rows, read alone
    │  └─ …
    └─ …

Tested by tests/features_store/test_schema.py.
"""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:  # every command loads this file to answer --help
    import numpy as np
    from numpy.typing import NDArray

FORMAT = 2
FORMAT_KEY = "avfuse_format"
NODE_FILE = "zarr.json"
FAILURES_FILE = "failures.jsonl"
TIME = "time"
VALID_SUFFIX = "_valid"
FACE_SCORE = "face_score"
_FACE = re.compile(r"/face\d+$")
# What follows the subject's name in the last segment of a trial's name; some of the name always remains.
_SUFFIXES = (
    re.compile(r"(.+)_(left|right)", re.IGNORECASE),
    re.compile(r"(.+)[_-](part|pt)[_-]?\d+", re.IGNORECASE | re.ASCII),
    re.compile(r"(video\d+)_\d+", re.IGNORECASE | re.ASCII),
    re.compile(r"(\d+-\d+-\d+x\d+)-\d+", re.IGNORECASE | re.ASCII),
)

CHUNK_BYTES = 1 << 20
SHARD_BYTES = 64 << 20
ZSTD_LEVEL = -1  # float32 features are noise: level 3 saves 8 % of them, and decodes at a sixth of the speed
_MAX_SEGMENT_BYTES = 255


AudioAlign = Literal["start", "center", "end"]
MissingFace = Literal["repeat", "zero"]
JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]


class StoreMismatch(ValueError):  # noqa: N818 - it says what the store is
    """The store holds something else than what was asked of it."""


class RowSource(Protocol):
    """Rows that can be read in slices: an array, or rows that lie on disk until they are written."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[T, ...]."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one value."""

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        """Rows [start, stop) as an array."""


@dataclass(frozen=True)
class ArraySpec:
    """What one array is: `dtype` (None: any), the axes after `frame`, unit and a sentence."""

    dtype: str | None
    axes: tuple[str, ...]
    units: str
    long_name: str


@dataclass(frozen=True)
class FeatureTrack:
    """One feature of one trial: `rows` [T, ...], `valid` bool [T] (true: made from real media), what the rows are.

    Raises ValueError where there is not one flag a row.
    """

    name: str
    rows: RowSource
    valid: NDArray[np.bool_]
    spec: ArraySpec | None = None

    def __post_init__(self) -> None:
        if self.rows.shape[0] != len(self.valid):
            raise ValueError(f"{self.name}: rows {self.rows.shape} but validity flags {self.valid.shape}")

    def arrays(self) -> dict[str, RowSource]:
        """The rows under the feature's name and the flags under `<name>_valid`."""
        rows = self.rows if self.spec is None else DescribedRows(self.rows, self.spec)
        return {self.name: rows, f"{self.name}{VALID_SUFFIX}": self.valid}


@dataclass(frozen=True)
class DescribedRows:
    """Rows [T, ...] that say what they are, where their name alone does not."""

    rows: RowSource
    spec: ArraySpec

    @property
    def shape(self) -> tuple[int, ...]:
        """[T, ...]."""
        return self.rows.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one value."""
        return self.rows.dtype

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        return self.rows[rows]


# The arrays that are the store's own; a feature's come with what they are: `encoders/table.py`.
_KNOWN = {
    TIME: ArraySpec("float64", (), "s", "presentation time of the frame on the container's clock"),
    "face_box": ArraySpec("float32", ("box",), "px", "x1, y1, x2, y2 of the face in the displayed frame"),
    "face_landmarks": ArraySpec("float32", ("landmark", "xy"), "px", "eyes, nose, corners of the mouth"),
    FACE_SCORE: ArraySpec("float32", (), "1", "probability of the face; 0 without one"),
}


@dataclass(frozen=True)
class Layout:
    """How one array lies on disk: names of its axes, shapes of chunk and shard."""

    dims: tuple[str, ...]
    chunk: tuple[int, ...]
    shard: tuple[int, ...]


def is_stores_own(name: str) -> bool:
    """Whether the store itself says what an array of this name is: times, boxes, flags."""
    return name in _KNOWN or name.endswith(VALID_SUFFIX)


def spec_of(name: str, ndim: int, source: RowSource | None = None) -> ArraySpec:
    """What the array `name` of `ndim` axes is: as its rows say, else by its name; unknown names are features.

    The feature axis is named after its array: features differ in width, and xarray gives a name one length.
    """
    if isinstance(source, DescribedRows):
        return source.spec
    if name.endswith(VALID_SUFFIX):
        feature = name.removesuffix(VALID_SUFFIX)
        return ArraySpec("bool", (), "1", f"true where {feature} was computed from real media")
    if name in _KNOWN:
        return _KNOWN[name]
    more = range(2, max(ndim, 2))
    axes = (f"feature_{name}", *(f"feature_{name}_{axis}" for axis in more))
    return ArraySpec(None, axes[: ndim - 1], "1", name)


def layout(name: str, shape: tuple[int, ...], itemsize: int, source: RowSource | None = None) -> Layout:
    """Axes, chunks and shards of an array of `shape` [T, ...] with `itemsize` bytes a value.

    Chunks are whole rows of about 1 MB; a shard is the fewest chunks that hold T rows, 64 MB at most.
    Raises ValueError where `shape` is not what `name` has.
    """
    axes = spec_of(name, len(shape), source).axes
    if len(shape) != 1 + len(axes) or 0 in shape[1:]:
        raise ValueError(f"{name} has the axes {('frame', *axes)}, got an array of shape {shape}")
    row_bytes = itemsize
    for width in shape[1:]:
        row_bytes *= width
    chunk_rows = max(1, min(CHUNK_BYTES // row_bytes, shape[0]))
    chunks = min(-(-shape[0] // chunk_rows), SHARD_BYTES // (chunk_rows * row_bytes))
    shard_rows = chunk_rows * max(1, chunks)
    return Layout(("frame", *axes), (chunk_rows, *shape[1:]), (shard_rows, *shape[1:]))


def is_array_name(name: str) -> bool:
    """Whether an array may have this name: that of one folder, not hidden."""
    return bool(name) and not name.startswith(".") and not set(name) & set("/\\\0")


def plain_name(name: str) -> str:
    """A trial's name as names are compared: Unicode composed (macOS decomposes it), no spaces around its parts."""
    return "/".join(part.strip() for part in unicodedata.normalize("NFC", name).split("/"))


def whole_trial(trial: str) -> str:
    """The trial of the video whose face this is, as its name says: `clip` of `clip/face0`; any other name as it is."""
    return _FACE.sub("", trial)


def subject_of(trial: str) -> str:
    """The subject's name in a trial's name: sides and part numbers taken off, folders kept."""
    folder, slash, name = trial.rpartition("/")
    while match := next(filter(None, (pattern.fullmatch(name) for pattern in _SUFFIXES)), None):
        name = match[1]
    return folder + slash + name


def check_trial_name(name: str) -> None:
    """Refuse a name that cannot be a group: `name` is relative, its segments separated by `/`.

    Raises ValueError with the name and the reason.
    """
    segments = name.split("/")
    hidden = next((segment for segment in segments if segment.startswith(".")), "")
    reasons = {
        "it is empty": not name,
        "it is absolute": name.startswith("/"),
        "it contains a NUL or a backslash": "\0" in name or "\\" in name,
        f"{FAILURES_FILE} is the store's own file": segments[0] == FAILURES_FILE,
        "a folder in it has no name": "" in segments,
        f"{hidden!r} begins with a dot": hidden != "",
        f"{NODE_FILE} is zarr's own file": NODE_FILE in segments,
        f"a folder's name has {_MAX_SEGMENT_BYTES} bytes at most": any(
            len(os.fsencode(segment)) > _MAX_SEGMENT_BYTES for segment in segments
        ),
    }
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(f"{name!r} cannot name a trial: {reason}; rename the video")
