"""What an audio feature makes of the sound: the table of its consumers, all fed from one decode.

    samples on disk ─┬─ mfccs ─────────────────────────────► mfcc
                     ├─ chunks of 32 ms, one by one ───────► speech
                     ├─ seconds ─ functionals ─────────────► egemaps
                     └─ level ─ windows ─ engine ─ states ─► wavlm_base, whisper_large …

A feature more is an entry of `CONSUMERS`; without one it is an encoder's states. Patches go their own way, while the
sound is being decoded: `audio.py`. Tested by tests/pipeline/extraction: test_audio.py, test_sound_states.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from ...encoders.contract import EncoderFailed
from ..audio.framing import Spans, lie_on
from ..audio.mfcc import mfcc_valid, mfccs
from ..audio.states import StateGrid, Window, is_silence, level, state_rows
from ..media.placement import BLOCK_SAMPLES
from ..media.types import SAMPLE_RATE_HZ
from .row_buffer import RowBuffer
from .session import Session

if TYPE_CHECKING:
    from ...encoders.families.silero import SpeechDetector

_ROWS_AT_ONCE = 64
# Where the second of a row begins, from its time.
_SECOND_S = {"start": 0.0, "center": -0.5, "end": -1.0}
# What fills a GPU at 30 s each: more would only take more memory.
_WINDOWS_ON_GPU = 4
# Batches of windows that may wait beyond those that are being computed.
_WAITING = 2


@dataclass(frozen=True)
class KeptSound:
    """The sound of a video from time 0: sample n lies at n / rate_hz s; zeros where there is none, see `real_spans`.

    `samples` on disk, to be read again and again; or, where one consumer alone wants them once, `live` from the
    decoder, with nothing on disk: `real_spans` is known when they have been read. Samples are float32 [S].
    """

    rate_hz: int
    samples: RowBuffer
    real_spans: Callable[[], Spans]
    live: Iterable[NDArray[np.float32]] | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """All samples, in blocks of 10 s at 16 kHz."""
        if self.live is not None:
            yield from self.live
        for at in range(0, len(self.samples), BLOCK_SAMPLES):
            yield self.samples.read(at, at + BLOCK_SAMPLES)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Samples [start, stop), of those that there are."""
        return self.samples.read(start, min(stop, len(self.samples)))


@dataclass(frozen=True)
class SoundTask:
    """One audio feature that is wanted: rows at `time_s` [T], appended to `buffer`; T or fewer, the last is repeated.

    `sound`: the samples at a rate, decoded once for each rate; `tell`: called with how many rows are done.
    """

    name: str
    time_s: NDArray[np.float64]
    buffer: RowBuffer
    session: Session
    sound: Callable[[int], KeptSound]
    tell: Callable[[int], None]


@dataclass(frozen=True)
class Consumed:
    """Which rows [T] a consumer made from real sound, and what a user should know."""

    valid: NDArray[np.bool_]
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class SoundConsumer:
    """How a feature is made of samples; `reads_once`: of their blocks at 16 kHz, one after the other, no more."""

    consume: Callable[[SoundTask], Consumed]
    reads_once: bool = False


def consume_mfcc(task: SoundTask) -> Consumed:
    """MFCC rows, in blocks as they come."""
    sound, align = task.sound(SAMPLE_RATE_HZ), task.session.config.audio_align
    for rows in mfccs(sound.blocks(), task.time_s, align, _ROWS_AT_ONCE):
        task.buffer.append(rows)
        task.tell(len(task.buffer))
    return Consumed(mfcc_valid(task.time_s, align, sound.real_spans()))


def consume_speech(task: SoundTask) -> Consumed:
    """Probabilities of speech: the mean of the chunks whose middle lies in [t, t + Δt), the nearest where none does.

    The detector remembers what it has heard, from the beginning of the sound on: there are no windows.
    """
    detector = cast("SpeechDetector", task.session.networks.encoders[task.name].made)
    times = detector.window_s, detector.context_s, detector.hop_s, detector.first_s
    grid = StateGrid(SAMPLE_RATE_HZ, *times, field_s=detector.hop_s)
    sound = task.sound(SAMPLE_RATE_HZ)
    first, stop = grid.of_rows(task.time_s)
    num_chunks = 0

    def pieces() -> Iterator[NDArray[np.float32]]:
        nonlocal num_chunks
        for probabilities in detector.stream(sound.blocks()):
            num_chunks += len(probabilities)
            yield probabilities[:, None]

    for rows in state_rows(pieces(), first, stop):
        task.buffer.append(rows)
        task.tell(len(task.buffer))
    return Consumed(grid.valid(task.time_s, num_chunks, sound.real_spans()))


def consume_egemaps(task: SoundTask) -> Consumed:
    """Functionals of the second of each row: [t, t + 1 s) or, as `--audio-align` says, around t or before it.

    Zeros stand before time 0. A row whose second is not over when the sound ends is not delivered. Each row is a
    computation of its own: functionals of overlapping seconds share nothing exactly.
    """
    extractor = task.session.networks.encoders[task.name]
    sound = task.sound(SAMPLE_RATE_HZ)
    starts = np.rint((task.time_s + _SECOND_S[task.session.config.audio_align]) * SAMPLE_RATE_HZ).astype(np.int64)
    whole = int(np.searchsorted(starts + SAMPLE_RATE_HZ, len(sound), side="right"))
    for at in range(0, whole, _ROWS_AT_ONCE):
        seconds = np.zeros((min(_ROWS_AT_ONCE, whole - at), SAMPLE_RATE_HZ), np.float32)
        for second, start in zip(seconds, starts[at : at + len(seconds)].tolist(), strict=True):
            samples = sound.read(max(0, start), max(0, start + SAMPLE_RATE_HZ))
            second[SAMPLE_RATE_HZ - len(samples) :] = samples
        task.buffer.append(extractor.states(seconds)[:, 0])
        task.tell(len(task.buffer))
    return Consumed(lie_on(sound.real_spans(), starts, SAMPLE_RATE_HZ))


def consume_states(task: SoundTask) -> Consumed:
    """Rows of an encoder's states: windows with context through the engine, the mean of a frame's states.

    Raises EncoderFailed, where it does not give what it says it does.
    """
    encoder = task.session.networks.encoders[task.name]
    times = encoder.window_s, encoder.context_s, encoder.hop_s, encoder.first_s, encoder.field_s
    try:
        grid = StateGrid(encoder.sample_rate, *times)
    except ValueError as error:
        raise EncoderFailed(f"encoder {task.name}: {error}") from error
    sound = task.sound(grid.rate_hz)
    said: tuple[str, ...] = ()
    mean, deviation = 0.0, 1.0
    if encoder.level:
        mean, deviation = level(sound.blocks(), sound.real_spans(), grid.rate_hz)
        if is_silence(deviation):
            said = (f"digital silence: what {task.name} makes of it are the states of rounding errors",)
    first, stop = grid.of_rows(task.time_s)
    wanted = (each for each in grid.windows(len(sound)) if each.first < stop.max(initial=0))
    num_states = 0

    def pieces() -> Generator[NDArray[np.float32], None, None]:
        nonlocal num_states
        for window, states in _in_order(task, sound, wanted, mean, deviation):
            try:
                kept = grid.kept(window, states, len(sound))
            except ValueError as error:
                raise EncoderFailed(f"encoder {task.name}: {error}") from error
            num_states += len(kept)
            yield kept

    with closing(pieces()) as states:
        for rows in state_rows(states, first, stop):
            task.buffer.append(rows)
            task.tell(len(task.buffer))
    return Consumed(grid.valid(task.time_s, num_states, sound.real_spans()), said)


def _in_order(
    task: SoundTask, sound: KeptSound, windows: Iterable[Window], mean: float, deviation: float
) -> Iterator[tuple[Window, NDArray[np.float32]]]:
    """Yield each window with its states, in order, while the engine computes the next ones.

    A batch has windows of one length only, and on a CPU one, since each core has a batch. `mean` is taken off, and
    what is left divided by `deviation`.
    """
    engine = task.session.networks.engine
    at_once = _WINDOWS_ON_GPU if task.session.networks.on_gpu else 1
    waiting: deque[tuple[list[Window], Future[NDArray[np.float32]]]] = deque()
    group: list[Window] = []
    try:
        for window in chain(windows, [None]):
            others = window is None or not group or window.stop - window.start != group[0].stop - group[0].start
            if group and (others or len(group) == at_once):
                samples = np.stack([sound.read(each.start, each.stop) for each in group])
                (future,) = engine.submit(task.name, ((samples - mean) / deviation).astype(np.float32)[None])
                waiting.append((group, future))
                group = []
            if window is not None:
                group.append(window)
            while len(waiting) > (0 if window is None else engine.parallel + _WAITING):
                done, future = waiting.popleft()
                yield from zip(done, future.result()[0], strict=True)
    finally:
        for _, future in waiting:
            future.cancel()


# In the place of an entry: an encoder's states.
STATES = SoundConsumer(consume_states)
CONSUMERS: Mapping[str, SoundConsumer] = {
    "mfcc": SoundConsumer(consume_mfcc, reads_once=True),
    "speech": SoundConsumer(consume_speech, reads_once=True),
    "egemaps": SoundConsumer(consume_egemaps),
}
