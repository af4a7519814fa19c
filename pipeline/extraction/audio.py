"""The sound: it is decoded once for all its features, at the clock's times, and their rows go to disk.

    AudioReader ─┬─ patches ─┬─ engine ─► vggish, logmel_vgg
                 │           └──────────► logmel
                 └─ samples on disk ─ MFCCs ─► mfcc           at once where nothing is made from patches

Tested by tests/pipeline/extraction/test_audio.py and test_extract.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ...encoders.table import feature
from ...encoders.views import VIEWS
from ...features_store.schema import JsonValue, RowSource
from ..audio.logmel import patch_valid, patches
from ..audio.mfcc import mfcc_valid, mfccs
from ..media.placement import BLOCK_SAMPLES
from ..media.readers import AudioReader
from ..media.types import Ending, MediaError
from .assemble import sound_arrays
from .row_buffer import PendingRows, RowBuffer, settled
from .streams import Reading

_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Sound:
    """The audio rows of a video: a buffer on disk and the flags of its rows for each feature.

    `is_told`: whether the trial is to say if there is sound, as it does when it is made and when features are.
    """

    present: bool
    buffers: Mapping[str, RowBuffer]
    valid: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    said: tuple[str, ...] = ()
    is_told: bool = True
    clock: None = None

    def share(self) -> float | None:
        """Share of the rows with real sound for a feature; None where no audio feature was asked for."""
        if not self.buffers:
            return None
        return float(np.stack([*self.valid.values()]).any(axis=0).mean()) if self.valid else 0.0

    def arrays(self, length: int) -> list[dict[str, RowSource]]:
        """The features in `length` rows, the same for everybody in the video."""
        return [sound_arrays(self.buffers, self.valid, length)]

    def attributes(self) -> dict[str, JsonValue]:
        """Whether there is sound."""
        return {"audio": "present" if self.present else "absent"} if self.is_told else {}

    def sources(self) -> tuple[str, ...]:
        """None: sound is decoded anew each time, at the times of the clock."""
        return ()

    def remarks(self) -> list[str]:
        """No sound at all."""
        return ["no audio: its features are zero rows, all invalid"] if self.is_told and not self.present else []


def read_sound(reading: Reading, features: Sequence[str]) -> Sound:
    """These audio features at the clock's frames that have rows; a stream that does not decode counts as no audio.

    Raises MediaError where another try may succeed: a disk that gave nothing for too long.
    """
    buffers = {name: RowBuffer(reading.scratch / f"{name}.rows", *reading.session.row_of(name)) for name in features}
    sound = Sound(reading.info.audio_stream is not None, buffers, is_told=bool(features) or not reading.job.adds)
    if not (sound.present and buffers):
        return sound
    try:
        valid, ending = _decode(reading, buffers)
    except MediaError as error:
        if error.is_transient:
            raise
        empty = {
            name: RowBuffer(reading.scratch / f"{name}-none.rows", buffer.row_shape, buffer.dtype)
            for name, buffer in buffers.items()
        }
        return replace(sound, present=False, buffers=empty, said=(f"the audio could not be decoded: {error}",))
    sound = replace(sound, valid=valid, said=ending.warnings)
    if sound.share() == 0:
        silent = "no row has sound that is real throughout: is it damaged, or shorter than a second?"
        return replace(sound, said=(*sound.said, silent))
    return sound


def _decode(reading: Reading, buffers: Mapping[str, RowBuffer]) -> tuple[dict[str, NDArray[np.bool_]], Ending]:
    """Fill the buffers from one pass over the sound; the flags of each feature's rows, and how decoding ended."""
    session, time_s = reading.session, reading.clock.row_time_s
    align = session.config.audio_align
    of_patches = {name: buffer for name, buffer in buffers.items() if feature(name).view == "patch"}
    plain = {name: buffer for name, buffer in of_patches.items() if name in VIEWS}
    # Embedder → its name and the rows on their way: two features with the same weights share them.
    embedded: dict[int, tuple[str, list[PendingRows]]] = {}
    for name, buffer in of_patches.items():
        if name not in plain:
            _, pending = embedded.setdefault(id(session.networks.embedders[name]), (name, []))
            pending.append(PendingRows(buffer))

    def tell(rows: int) -> None:
        reading.progress(rows, float(time_s[max(rows, 1) - 1]), float(time_s[-1]))

    valid: dict[str, NDArray[np.bool_]] = {}
    with AudioReader(reading.info, stall_timeout_s=session.stall_timeout_s) as audio:
        blocks: Iterable[NDArray[np.float32]] = audio
        if of_patches:
            samples = RowBuffer(reading.scratch / "samples.rows", ())
            passing = _kept(audio, samples) if "mfcc" in buffers else audio
            with settled([each for _, pending in embedded.values() for each in pending]):
                for batch in patches(passing, time_s, align, _ROWS_AT_ONCE):
                    for name, buffer in plain.items():
                        buffer.append(VIEWS[name](batch))
                    for name, pending in embedded.values():
                        futures = session.networks.engine.submit(name, batch)
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
