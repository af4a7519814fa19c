"""The audio features of one video, spooled row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ...encoders.table import AUDIO_FEATURES, PATCH_FEATURES
from ...features_store.schema import FeatureTrack
from ..audio.logmel import patch_valid, patches
from ..audio.mfcc import mfcc_valid, mfccs
from ..media.readers import AudioReader
from ..media.types import Ending, MediaError, VideoInfo
from .assemble import audio_track
from .jobs import Progress
from .row_buffer import PendingRows, RowBuffer
from .session import Session

_PATCHES_AT_ONCE = 64
_ROW_SHAPES = {"vggish": (128,), "logmel_vgg": (128,), "mfcc": (39,), "logmel": (96, 64)}


@dataclass(frozen=True)
class Sound:
    """The audio rows of a video: a spool and the flags of its rows for each feature."""

    present: bool
    buffers: Mapping[str, RowBuffer]
    valid: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def tracks(self, length: int) -> list[FeatureTrack]:
        """Each feature fitted to `length` rows; without audio zero rows, all invalid."""
        nothing = np.zeros(0, bool)
        return [
            audio_track(name, buffer, self.valid.get(name, nothing), length) for name, buffer in self.buffers.items()
        ]


def read_sound(
    info: VideoInfo, time_s: NDArray[np.float64], session: Session, scratch: Path, progress: Progress
) -> Sound:
    """Audio features of the frames at `time_s` [N]; a stream that does not decode counts as no audio.

    Raises MediaError where another try may hear it: a disk that gave nothing for too long.
    """
    buffers = {
        name: RowBuffer(scratch / f"{name}.f32", _ROW_SHAPES[name])
        for name in session.config.features
        if name in AUDIO_FEATURES
    }
    if info.audio_stream is None:
        return Sound(False, buffers)
    open_audio = partial(AudioReader, info, stall_timeout_s=session.stall_timeout_s)

    def tell(rows: int) -> None:
        progress("sound", rows, float(time_s[max(rows, 1) - 1]), float(time_s[-1]))

    try:
        valid, ending = _fill(buffers, open_audio, time_s, session, tell)
    except MediaError as error:
        if error.is_transient:
            raise
        empty = {name: RowBuffer(scratch / f"{name}-none.f32", buffer.row_shape) for name, buffer in buffers.items()}
        return Sound(False, empty, {}, (f"the audio could not be decoded: {error}",))
    silent = valid and not any(rows.any() for rows in valid.values())
    nothing = ("no row has sound that is real throughout: is it damaged, or shorter than a second?",) if silent else ()
    return Sound(True, buffers, valid, (*ending.warnings, *nothing))


def _fill(
    buffers: Mapping[str, RowBuffer],
    open_audio: Callable[[], AudioReader],
    time_s: NDArray[np.float64],
    session: Session,
    tell: Callable[[int], None],
) -> tuple[dict[str, NDArray[np.bool_]], Ending]:
    """Decode the audio once for the patches and once for the MFCCs, where they are asked for."""
    valid: dict[str, NDArray[np.bool_]] = {}
    ending = Ending(False, ())
    from_patches = {name: buffer for name, buffer in buffers.items() if name != "mfcc"}
    if from_patches:
        with open_audio() as audio, _Rows(from_patches, session) as embedded:
            for batch in patches(audio, time_s, session.config.audio_align, _PATCHES_AT_ONCE):
                tell(embedded.take(batch.logmel))
        tell(len(time_s))
        real = patch_valid(time_s, session.config.audio_align, audio.real_spans())
        valid.update(dict.fromkeys(from_patches, real))
        ending = audio.ending
    if "mfcc" in buffers:
        with open_audio() as audio:
            for rows in mfccs(audio, time_s, session.config.audio_align, _PATCHES_AT_ONCE):
                buffers["mfcc"].append(rows)
                tell(len(buffers["mfcc"]))
        valid["mfcc"] = mfcc_valid(time_s, session.config.audio_align, audio.real_spans())
        ending = audio.ending
    return valid, ending


class _Rows:
    """What becomes of patches, on the way to the spools: two features with the same weights share their rows."""

    def __init__(self, buffers: Mapping[str, RowBuffer], session: Session) -> None:
        self._tools = session
        self._buffers = list(buffers.values())
        self._raw = [buffer for name, buffer in buffers.items() if name not in PATCH_FEATURES]
        self._arrivals: dict[int, tuple[str, list[PendingRows]]] = {}
        for name, buffer in buffers.items():
            if name in PATCH_FEATURES:
                _, sharing = self._arrivals.setdefault(id(session.networks.embedders[name]), (name, []))
                sharing.append(PendingRows(buffer))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for arrivals in (each for _, sharing in self._arrivals.values() for each in sharing):
            if error is None:
                arrivals.settle()
            else:
                arrivals.drop()

    def take(self, logmel: NDArray[np.float32]) -> int:
        """The next patches [N, 96, 64]; returns how many rows there are of every feature so far."""
        for buffer in self._raw:
            buffer.append(logmel)
        for name, sharing in self._arrivals.values():
            futures = self._tools.networks.engine.submit(name, logmel)
            for arrivals in sharing:
                arrivals.expect(futures)
        return min(map(len, self._buffers))
