"""The audio features of one video, spooled row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..features_store.types import FeatureTrack
from . import media
from .config import AUDIO_FEATURES, PATCH_FEATURES
from .embed import Embedder
from .jobs import Progress
from .mfcc import mfcc_valid, mfccs
from .patches import patch_valid, patches
from .spool import Spool
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
    """Audio features of the frames at `time_s` [N]; a stream that does not decode counts as no audio."""
    spools = {
        name: Spool(scratch / f"{name}.f32", _ROW_SHAPES[name])
        for name in tools.config.features
        if name in AUDIO_FEATURES
    }
    if info.audio_stream is None:
        return Sound(False, spools)
    open_audio = partial(media.AudioReader, info, stall_timeout_s=tools.stall_timeout_s)

    def tell(rows: int) -> None:
        progress("sound", rows, float(time_s[rows - 1]), float(time_s[-1]))

    try:
        valid, ending = _fill(spools, open_audio, time_s, tools, tell)
    except media.MediaError as error:
        empty = {name: Spool(scratch / f"{name}-none.f32", spool.row_shape) for name, spool in spools.items()}
        return Sound(False, empty, {}, (f"the audio could not be decoded: {error}",))
    return Sound(True, spools, valid, ending.warnings)


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
        with open_audio() as audio:
            for batch in patches(audio, time_s, tools.config.audio_align, _PATCHES_AT_ONCE):
                tell(_append_patches(from_patches, batch.logmel, tools.embedders))
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


def _append_patches(spools: Mapping[str, Spool], logmel: NDArray[np.float32], embedders: Mapping[str, Embedder]) -> int:
    """Embed a batch once a network: two features with the same weights share their rows. Returns the rows so far."""
    rows: dict[int, NDArray[np.float32]] = {}
    for name, spool in spools.items():
        if name in PATCH_FEATURES:
            embedder = embedders[name]
            if id(embedder) not in rows:
                rows[id(embedder)] = embedder.rows(logmel)
            spool.append(rows[id(embedder)])
        else:
            spool.append(logmel)
    return len(next(iter(spools.values())))
