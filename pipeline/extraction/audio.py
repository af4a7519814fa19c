"""The sound: it is decoded once for all its features, at the clock's times, and their rows go to disk.

    open_sound ─┬─ patches ─┬─ engine ─► vggish, logmel_vgg
                │           └──────────► logmel
                └─ samples on disk ─ consumers ─► mfcc, wavlm_base, …       at once where there is one that can

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
from ..audio.denoise import DenoisedReader
from ..audio.logmel import patch_valid, patches
from ..media.readers import AudioReader
from ..media.sound_file import open_sound_file
from ..media.types import SAMPLE_RATE_HZ, MediaError
from .assemble import sound_arrays
from .consumers import CONSUMERS, STATES, KeptSound, SoundTask
from .provenance import source_attributes
from .row_buffer import PendingRows, RowBuffer, settled
from .streams import Reading

_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Sound:
    """The audio rows of a video: a buffer on disk and the flags of its rows, bool [N], for each feature.

    `is_told`: whether the trial is to say if there is sound, as it does when it is made and when features are; `file`:
    name, size, time and sha256 of the file in place of the video's own sound.
    """

    present: bool
    buffers: Mapping[str, RowBuffer]
    valid: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    said: tuple[str, ...] = ()
    is_told: bool = True
    file: Mapping[str, JsonValue] | None = None
    clock: None = None

    def share(self) -> float | None:
        """Share of the rows with real sound for a feature; None where no audio feature was asked for."""
        if not self.buffers:
            return None
        return float(np.stack([*self.valid.values()]).any(axis=0).mean()) if self.valid else 0.0

    def arrays(self, length: int) -> list[dict[str, RowSource]]:
        """The features [length, ...], the same for everybody in the video, as `sound_arrays` gives them."""
        return [sound_arrays(self.buffers, self.valid, length)]

    def attributes(self) -> dict[str, JsonValue]:
        """Whether there is sound."""
        return {"audio": "present" if self.present else "absent"} if self.is_told else {}

    def files(self) -> dict[str, JsonValue]:
        """The file in place of the video's own sound."""
        return {} if self.file is None else {"audio_file": dict(self.file)}

    def sources(self) -> tuple[str, ...]:
        """None: sound is decoded anew each time, at the times of the clock."""
        return ()

    def remarks(self) -> list[str]:
        """No sound at all."""
        return ["no audio: its features are zero rows, all invalid"] if self.is_told and not self.present else []


def read_sound(reading: Reading, features: Sequence[str]) -> Sound:
    """These audio features at the clock's frames that have rows; a stream that does not decode counts as no audio.

    Raises MediaError where another try may succeed, a disk that gave nothing for too long, and where the sound is to be
    that of a file which does not decode: nobody is to take its silence for the speaker's.
    """
    file, about_file, path = None, list[str](), reading.job.sound
    if path is not None and features:
        opened = open_sound_file(path, reading.info)
        reading, file = replace(reading, info=opened.info), source_attributes(path)
        about_file += [opened.warning] if opened.warning else []
    buffers = {name: RowBuffer(reading.scratch / f"{name}.rows", *reading.session.row_of(name)) for name in features}
    sound = Sound(
        reading.info.audio_stream is not None, buffers, is_told=bool(features) or not reading.job.adds, file=file
    )
    if not (sound.present and buffers):
        return sound
    try:
        valid, said = _decode(reading, buffers)
    except MediaError as error:
        if error.is_transient or file is not None:
            raise
        empty = {
            name: RowBuffer(reading.scratch / f"{name}-none.rows", buffer.row_shape, buffer.dtype)
            for name, buffer in buffers.items()
        }
        return replace(sound, present=False, buffers=empty, said=(f"the audio could not be decoded: {error}",))
    sound = replace(sound, valid=valid, said=(*about_file, *said))
    if sound.share() == 0:
        silent = "no row has sound that is real throughout: is it damaged, or shorter than a second?"
        return replace(sound, said=(*sound.said, silent))
    return sound


def open_sound(reading: Reading, rate_hz: int = SAMPLE_RATE_HZ) -> AudioReader:
    """What all samples of a video come from: a context manager that gives blocks, then its ending and real spans.

    With `--denoise` they are clean.
    """
    reader = AudioReader if reading.session.config.denoise is None else DenoisedReader
    return reader(reading.info, stall_timeout_s=reading.session.stall_timeout_s, rate_hz=rate_hz)


def _decode(reading: Reading, buffers: Mapping[str, RowBuffer]) -> tuple[dict[str, NDArray[np.bool_]], tuple[str, ...]]:
    """Fill the buffers from one pass over the sound; the flags of each feature's rows, and what there is to say."""
    session, time_s = reading.session, reading.clock.row_time_s
    align = session.config.audio_align
    of_patches = {name: buffer for name, buffer in buffers.items() if feature(name).view == "patch"}
    consumers = {name: CONSUMERS.get(name, STATES) for name in buffers if name not in of_patches}
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
    with open_sound(reading) as audio:
        samples = RowBuffer(reading.scratch / "samples.rows", ())
        one_alone = not of_patches and len(consumers) == 1 and all(each.reads_once for each in consumers.values())
        if of_patches:
            passing = _kept(audio, samples) if consumers else audio
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
        elif not one_alone:
            for _ in _kept(audio, samples):
                tell(0)
        sounds = {
            SAMPLE_RATE_HZ: KeptSound(SAMPLE_RATE_HZ, samples, audio.real_spans, live=audio if one_alone else None)
        }

        def sound_at(rate_hz: int) -> KeptSound:
            if rate_hz not in sounds:
                sounds[rate_hz] = _decode_at(reading, rate_hz)
            return sounds[rate_hz]

        said: list[str] = []
        for name, consumer in consumers.items():
            consumed = consumer.consume(SoundTask(name, time_s, buffers[name], session, sound_at, tell))
            valid[name] = consumed.valid
            said += consumed.said
    return valid, (*audio.ending.warnings, *said)


def _decode_at(reading: Reading, rate_hz: int) -> KeptSound:
    """The sound once more at another rate: what a decode of the sound alone costs, and nothing is resampled twice."""
    samples = RowBuffer(reading.scratch / f"samples-{rate_hz}.rows", ())
    with open_sound(reading, rate_hz) as audio:
        for _ in _kept(audio, samples):
            reading.progress(0, 0.0, None)
        spans = audio.real_spans()
    return KeptSound(rate_hz, samples, lambda: spans)


def _kept(blocks: Iterable[NDArray[np.float32]], samples: RowBuffer) -> Iterator[NDArray[np.float32]]:
    """The same blocks, each of which has been appended to `samples`."""
    for block in blocks:
        samples.append(block)
        yield block
