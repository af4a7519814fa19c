"""The words: read from a file that lies there, laid on the clock's times, and embedded segment by segment.

    TRIAL.csv ─ words ┬─ segments ─ encoder ─► one row per word ─┐
                      └─ which word is spoken at a frame ────┴─► bert

Tested by tests/pipeline/extraction/test_words.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...encoders.table import feature
from ...encoders.views import VIEWS
from ...features_store.clock import NO_ROW, fit_rows
from ...features_store.records.failures import Stage
from ...features_store.schema import FeatureTrack, JsonValue, RowSource
from ...shell.text import counted, one_line
from ..media.types import MediaError, VideoInfo
from ..words.spoken import segments, words_at
from ..words.transcript import read_transcript
from .assemble import track_arrays
from .provenance import words_digest
from .row_buffer import GatheredRows, RowBuffer
from .streams import Reading


@dataclass(frozen=True)
class SpokenWords:
    """The rows of a video's words, a buffer on disk for each feature, and the word of each frame that has a row.

    `spoken` int64 [T]; `digest`: of the file, None without one; `late`: words that begin after the last frame,
    or the sound.
    """

    buffers: Mapping[str, RowBuffer]
    spoken: NDArray[np.int64]
    num_words: int = 0
    late: int = 0
    digest: str | None = None
    said: tuple[str, ...] = ()
    clock: None = None

    def share(self) -> float | None:
        """Share of the rows at which a word is spoken; None where no feature of words was asked for."""
        return float((self.spoken != NO_ROW).mean()) if self.buffers and len(self.spoken) else None

    def arrays(self, length: int) -> list[dict[str, RowSource]]:
        """The features in `length` rows: zeros between words; rows past the video repeat the last one, invalid."""
        frame_of_row, real = fit_rows(len(self.spoken), length)
        source = self.spoken[frame_of_row] if len(self.spoken) else frame_of_row
        valid = (source != NO_ROW) & real
        tracks = (
            FeatureTrack(name, GatheredRows(buffer, source), valid, feature(name).spec)
            for name, buffer in self.buffers.items()
        )
        return [track_arrays(tracks)]

    def attributes(self) -> dict[str, JsonValue]:
        """Nothing: the words are the features' own, who say which file they had."""
        return {}

    def files(self) -> dict[str, JsonValue]:
        """The hash of the file of words."""
        return {"words": self.digest}

    def sources(self) -> tuple[str, ...]:
        """None: the file is read anew each time."""
        return ()

    def remarks(self) -> list[str]:
        """No file, no words, or words at times that the video does not have."""
        if not self.buffers:
            return []
        nothing = f"{', '.join(self.buffers)}: zero rows, all invalid"
        if self.digest is None:
            return [f"there is no file of words: {nothing}"]
        if not self.num_words:
            return [f"no words in its file: {nothing}"]
        if not self.late:
            return []
        late = "all words" if self.late == self.num_words else counted(self.late, "word")
        return [f"{late} after the last frame or the end of the sound: are the times in s, and of this video?"]


def read_words(reading: Reading, features: Sequence[str]) -> SpokenWords:
    """These features of the words that are spoken at the clock's frames; no file, or an empty one, has none.

    A word lasts no longer than the video's sound, where the container says how long that is.

    Raises MediaError where the file cannot be read.
    """
    session, path = reading.session, reading.job.words
    time_s = reading.clock.row_time_s
    buffers = {name: RowBuffer(reading.scratch / f"{name}.rows", *session.row_of(name)) for name in features}
    if not features or path is None:
        return SpokenWords(buffers, np.full(len(time_s), NO_ROW, np.int64))
    try:
        digest, transcript = words_digest(path), read_transcript(path)
    except (OSError, ValueError) as error:
        raise MediaError(str(path), Stage.WORDS, one_line(error)) from error
    words = transcript.words
    end_s = min(_sound_end_s(reading.info), float(time_s[-1]) if len(time_s) else 0.0)
    spoken = np.where(time_s <= end_s, words_at(words, time_s), NO_ROW)
    for part in segments(words):
        texts = [word.text for word in words[part]]
        is_heard = bool(np.any((spoken >= part.start) & (spoken < part.stop)))
        for name, buffer in buffers.items():
            if not is_heard:
                rows = np.zeros((len(texts), *buffer.row_shape), buffer.dtype)
            elif name in VIEWS:
                rows = VIEWS[name](texts)
            else:
                rows = session.networks.encoders[name].rows(texts)
            buffer.append(rows)
        last_s = words[part.stop - 1].end_s
        reading.progress(int(np.searchsorted(time_s, last_s, side="right")), last_s, reading.info.duration_s)
    late = sum(word.start_s >= end_s for word in words)
    return SpokenWords(buffers, spoken, len(words), late, digest, transcript.remarks)


def _sound_end_s(info: VideoInfo) -> float:
    """Where the video's sound ends on the clock of its frames; endless where its container does not say."""
    if info.audio_start_s is None or info.audio_duration_s is None or info.audio_parts:
        return math.inf
    return info.audio_start_s - info.origin_s + info.audio_duration_s
