"""The audio features of one video: the sound is decoded once, and every feature's rows go to disk.

    AudioReader ─┬─ patches ─┬─ engine ─► vggish, logmel_vgg
                 │           └──────────► logmel
                 └─ samples on disk ─ MFCCs ─► mfcc           at once where nothing is made from patches

Tested by tests/pipeline/extraction/test_audio.py and test_extract.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...encoders.table import TABLE
from ...encoders.views import VIEWS
from ..audio.logmel import patch_valid, patches
from ..audio.mfcc import mfcc_valid, mfccs
from ..media.placement import BLOCK_SAMPLES
from ..media.readers import AudioReader
from ..media.types import Ending, MediaError, VideoInfo
from .jobs import Progress
from .row_buffer import PendingRows, RowBuffer, settled
from .session import Session

_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Sound:
    """The audio rows of a video: a buffer on disk and the flags of its rows for each feature."""

    present: bool
    buffers: Mapping[str, RowBuffer]
    valid: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def read_sound(
    info: VideoInfo,
    time_s: NDArray[np.float64],
    features: Sequence[str],
    session: Session,
    scratch: Path,
    progress: Progress,
) -> Sound:
    """These audio features of the frames at `time_s` [N]; a stream that does not decode counts as no audio.

    Raises MediaError where another try may succeed: a disk that gave nothing for too long.
    """
    buffers = {
        name: RowBuffer(scratch / f"{name}.rows", TABLE[name].row_shape or (), TABLE[name].dtype) for name in features
    }
    if info.audio_stream is None or not buffers:
        return Sound(info.audio_stream is not None, buffers)
    try:
        valid, ending = _decode(info, time_s, session, buffers, scratch, progress)
    except MediaError as error:
        if error.is_transient:
            raise
        empty = {
            name: RowBuffer(scratch / f"{name}-none.rows", buffer.row_shape, buffer.dtype)
            for name, buffer in buffers.items()
        }
        return Sound(False, empty, {}, (f"the audio could not be decoded: {error}",))
    silent = not any(rows.any() for rows in valid.values())
    nothing = ("no row has sound that is real throughout: is it damaged, or shorter than a second?",) if silent else ()
    return Sound(True, buffers, valid, (*ending.warnings, *nothing))


def _decode(
    info: VideoInfo,
    time_s: NDArray[np.float64],
    session: Session,
    buffers: Mapping[str, RowBuffer],
    scratch: Path,
    progress: Progress,
) -> tuple[dict[str, NDArray[np.bool_]], Ending]:
    """Fill the buffers from one pass over the sound; the flags of each feature's rows, and how decoding ended."""
    align = session.config.audio_align
    of_patches = {name: buffer for name, buffer in buffers.items() if TABLE[name].view == "patch"}
    plain = {name: buffer for name, buffer in of_patches.items() if name in VIEWS}
    # Embedder → its name and the rows on their way: two features with the same weights share them.
    embedded: dict[int, tuple[str, list[PendingRows]]] = {}
    for name, buffer in of_patches.items():
        if name not in plain:
            _, pending = embedded.setdefault(id(session.networks.embedders[name]), (name, []))
            pending.append(PendingRows(buffer))

    def tell(rows: int) -> None:
        progress("sound", rows, float(time_s[max(rows, 1) - 1]), float(time_s[-1]))

    valid: dict[str, NDArray[np.bool_]] = {}
    with AudioReader(info, stall_timeout_s=session.stall_timeout_s) as audio:
        blocks: Iterable[NDArray[np.float32]] = audio
        if of_patches:
            samples = RowBuffer(scratch / "samples.rows", ())
            passing = _kept(audio, samples) if "mfcc" in buffers else audio
            with settled([each for _, pending in embedded.values() for each in pending]):
                for batch in patches(passing, time_s, align, _ROWS_AT_ONCE):
                    for name, buffer in plain.items():
                        buffer.append(VIEWS[name](batch.logmel))
                    for name, pending in embedded.values():
                        futures = session.networks.engine.submit(name, batch.logmel)
                        for each in pending:
                            each.expect(futures)
                    tell(min(map(len, of_patches.values())))
            tell(len(time_s))
            valid.update(dict.fromkeys(of_patches, patch_valid(time_s, align, audio.real_spans())))
            blocks = (samples.read(at, at + BLOCK_SAMPLES) for at in range(0, len(samples), BLOCK_SAMPLES))
        if "mfcc" in buffers:
            for rows in mfccs(blocks, time_s, align, _ROWS_AT_ONCE):
                buffers["mfcc"].append(rows)
                tell(len(buffers["mfcc"]))
            valid["mfcc"] = mfcc_valid(time_s, align, audio.real_spans())
    return valid, audio.ending


def _kept(blocks: Iterable[NDArray[np.float32]], samples: RowBuffer) -> Iterator[NDArray[np.float32]]:
    """The same blocks, each of which has been appended to `samples`."""
    for block in blocks:
        samples.append(block)
        yield block
