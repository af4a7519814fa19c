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

from ..features_store.types import FeatureTrack
from . import media
from .config import AUDIO_FEATURES, PATCH_FEATURES
from .jobs import Progress
from .mfcc import mfcc_valid, mfccs
from .patches import patch_valid, patches
from .spool import Arrivals, Spool
from .toolbox import Toolbox
from .tracks import audio_track

_PATCHES_AT_ONCE = 64
_ROW_SHAPES = {"vggish": (128,), "logmel_vgg": (128,), "mfcc": (39,), "logmel": (96, 64)}


@dataclass(frozen=True)
class Sound:
    """The audio rows of a video: a spool and the flags of its rows for each feature."""

    present: bool
    spools: Mapping[str, Spool]
    valid: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def tracks(self, length: int) -> list[FeatureTrack]:
        """Each feature fitted to `length` rows; without audio zero rows, all invalid."""
        nothing = np.zeros(0, bool)
        return [audio_track(name, spool, self.valid.get(name, nothing), length) for name, spool in self.spools.items()]


def read_sound(
    info: media.VideoInfo, time_s: NDArray[np.float64], tools: Toolbox, scratch: Path, progress: Progress
) -> Sound:
    """Audio features of the frames at `time_s` [N]; a stream that does not decode counts as no audio.

    Raises MediaError where another try may hear it: a disk that gave nothing for too long.
    """
    spools = {
        name: Spool(scratch / f"{name}.f32", _ROW_SHAPES[name])
        for name in tools.config.features
        if name in AUDIO_FEATURES
    }
    if info.audio_stream is None:
        return Sound(False, spools)
    open_audio = partial(media.AudioReader, info, stall_timeout_s=tools.stall_timeout_s)

    def tell(rows: int) -> None:
        progress("sound", rows, float(time_s[max(rows, 1) - 1]), float(time_s[-1]))

    try:
        valid, ending = _fill(spools, open_audio, time_s, tools, tell)
    except media.MediaError as error:
        if error.may_pass:
            raise
        empty = {name: Spool(scratch / f"{name}-none.f32", spool.row_shape) for name, spool in spools.items()}
        return Sound(False, empty, {}, (f"the audio could not be decoded: {error}",))
    silent = valid and not any(rows.any() for rows in valid.values())
    nothing = ("no row has sound that is real throughout: is it damaged, or shorter than a second?",) if silent else ()
    return Sound(True, spools, valid, (*ending.warnings, *nothing))


def _fill(
    spools: Mapping[str, Spool],
    open_audio: Callable[[], media.AudioReader],
    time_s: NDArray[np.float64],
    tools: Toolbox,
    tell: Callable[[int], None],
) -> tuple[dict[str, NDArray[np.bool_]], media.Ending]:
    """Decode the audio once for the patches and once for the MFCCs, where they are asked for."""
    valid: dict[str, NDArray[np.bool_]] = {}
    ending = media.Ending(False, ())
    from_patches = {name: spool for name, spool in spools.items() if name != "mfcc"}
    if from_patches:
        with open_audio() as audio, _Rows(from_patches, tools) as embedded:
            for batch in patches(audio, time_s, tools.config.audio_align, _PATCHES_AT_ONCE):
                tell(embedded.take(batch.logmel))
        tell(len(time_s))
        real = patch_valid(time_s, tools.config.audio_align, audio.real_spans())
        valid.update(dict.fromkeys(from_patches, real))
        ending = audio.ending
    if "mfcc" in spools:
        with open_audio() as audio:
            for rows in mfccs(audio, time_s, tools.config.audio_align, _PATCHES_AT_ONCE):
                spools["mfcc"].append(rows)
                tell(len(spools["mfcc"]))
        valid["mfcc"] = mfcc_valid(time_s, tools.config.audio_align, audio.real_spans())
        ending = audio.ending
    return valid, ending


class _Rows:
    """What becomes of patches, on the way to the spools: two features with the same weights share their rows."""

    def __init__(self, spools: Mapping[str, Spool], tools: Toolbox) -> None:
        self._tools = tools
        self._spools = list(spools.values())
        self._raw = [spool for name, spool in spools.items() if name not in PATCH_FEATURES]
        self._arrivals: dict[int, tuple[str, list[Arrivals]]] = {}
        for name, spool in spools.items():
            if name in PATCH_FEATURES:
                _, sharing = self._arrivals.setdefault(id(tools.networks.embedders[name]), (name, []))
                sharing.append(Arrivals(spool))

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
        for spool in self._raw:
            spool.append(logmel)
        for name, sharing in self._arrivals.values():
            futures = self._tools.networks.engine.submit(name, logmel)
            for arrivals in sharing:
                arrivals.expect(futures)
        return min(map(len, self._spools))
