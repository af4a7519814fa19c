"""Video files to frames and samples on one clock; whatever reads a video is started here and in `process`.

Time 0 is the earlier start of the two streams. Row i is decoded frame i, at its own PTS; sample n is at
n/16000 s.
Playlists and network addresses are never followed: local media containers only, over `file` only.

Tested by tests/pipeline/media: test_readers.py, test_sync.py, test_cases_clock.py, test_prefetch.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ...features_store.records.failures import Stage
from ...shell.text import counted
from . import ffmpeg_args
from .decoder import Decoder
from .frame_clock import FrameClock
from .placement import BLOCK_SAMPLES, LOOK_AHEAD_S, Placement
from .process import ffmpeg_version
from .types import SAMPLE_RATE_HZ, Ending, FrameBatch, MediaError, VideoInfo

Item = TypeVar("Item")

_MOST_WAITING_S = 60
_BATCH_BYTES = 64 << 20
_DEFAULT_STEP_S = 1 / 30
_LONGEST_STEP_S = 3600.0
_SILENT_POWER = 1e-8  # -80 dB of full scale
_CANCELLED = 16.0  # 12 dB; that mono has nothing above 8 kHz takes 5 dB off white noise
# 186 h at 25 frames/s: a file can name one frame again and again, for four bytes a time.
MAX_FRAMES = 1 << 24


class FrameReader(Decoder):
    """Iterates over the frames of a video as `FrameBatch`es; a context manager, read once.

    Frames as ffmpeg shows them (edit lists and rotation applied), none dropped or repeated; `time_s` rises
    strictly. `pixels=False` delivers times only. Memory: one batch. After it `ending` says how it went.
    Raises MediaError when no frame can be decoded, more than `MAX_FRAMES` are, or no byte comes for
    `stall_timeout_s`.
    """

    def __init__(
        self, info: VideoInfo, *, batch_frames: int = 32, pixels: bool = True, stall_timeout_s: float = 60.0
    ) -> None:
        arguments = ffmpeg_args.to_frames(info, pixels=pixels, version=ffmpeg_version())
        super().__init__(info, Stage.VIDEO, arguments, stall_timeout_s)
        self._pixels = pixels
        self._shape = (info.height_px, info.width_px, 3) if pixels else (1, 1, 1)
        self._batch = max(1, min(batch_frames, _BATCH_BYTES // int(np.prod(self._shape))))
        step_s = min(1 / float(info.fps), _LONGEST_STEP_S) if info.fps else _DEFAULT_STEP_S
        self._clock = FrameClock(info.origin_s, info.video_start_s, step_s, info.video_parts)

    def __iter__(self) -> Iterator[FrameBatch]:
        num_frames, num_stamps, last_s = 0, 0, 0.0
        times: list[float] = []
        waiting = np.empty((0, *self._shape), np.uint8)  # frames whose time depends on those that follow
        ended = False
        while not ended:
            pictures = np.empty((self._batch, *self._shape), np.uint8)
            num_bytes = self._read_into(memoryview(pictures.data).cast("B"))
            pictures = pictures[: num_bytes // pictures[0].nbytes]  # less a frame in whose middle ffmpeg died
            num_frames += len(pictures)
            ended = len(pictures) < self._batch
            if num_frames > MAX_FRAMES:
                raise MediaError(self._path, Stage.VIDEO, f"gives more than {MAX_FRAMES} frames: damaged")
            stamps = self._take_stamps(num_frames, 0, ended)
            for stamp in stamps:
                self._clock.add(stamp.time_s, stamp.tick_s)
            num_stamps += len(stamps)
            missing = num_frames - num_stamps
            if ended or missing > self._batch:  # no more than a batch may wait for a line that was lost
                for _ in range(missing):
                    self._clock.add(None)
                num_stamps += max(0, missing)
            times += self._clock.settled(ended)
            waiting = np.concatenate([waiting, pictures]) if len(waiting) else pictures
            count = min(len(times), len(waiting))
            if count:
                last_s = times[count - 1]
                shown, waiting = waiting[:count], waiting[count:]
                time_s, times = np.array(times[:count]), times[count:]
                yield FrameBatch(shown if self._pixels else shown[:, :0, :0].repeat(3, axis=3), time_s)
        self._ending = self._end(num_frames, last_s)

    def _end(self, num_frames: int, last_s: float) -> Ending:
        truncated, damage = self._finish(num_frames)
        warnings = list(damage)
        if self._clock.num_repaired:
            warnings.append(f"{counted(self._clock.num_repaired, 'frame')} without a time that rises: times repaired")
        if joins := self._clock.parts.num_joins:
            warnings.append(f"{joins + 1} recordings joined in one file: times repaired, they go on")
        with self._log.changed:
            shapes = list(self._log.shapes)
        if len(shapes) > 1:
            stretched = len({aspect for *_, aspect in shapes}) > 1
            said = ", then ".join(
                f"{width}×{height}" + f" of {aspect:.3g}:1 pixels" * stretched for width, height, aspect in shapes[:4]
            )
            whole = f"{self._info.width_px}×{self._info.height_px}"
            warnings.append(f"the picture changes its size or shape ({said}): all fitted into {whole}, undistorted")
        duration_s = self._info.duration_s or 0.0
        if self._info.container == "avi" and last_s + 1 < 0.9 * duration_s and is_torn_avi(self._info.path):
            # An AVI cut between two chunks raises no error, but its header says how long it was.
            truncated = True
            warnings.append(f"ends at {last_s:.2f} s of {duration_s:.2f} s")
        return Ending(truncated, tuple(warnings))


class AudioReader(Decoder):
    """Iterates over a file's sound, mono float32 blocks of `rate_hz` without gaps from the origin on; read once.

    Sample n of the whole lies at n/rate_hz s: zeros stand before the sound's start and in its gaps. Memory:
    10 s. After the last block `ending` says how it went and `real_spans()` where real sound is. What lies later
    than `until_s` (from the origin) is not decoded. Raises MediaError when nothing can be decoded, when the times
    are absurd, or no byte comes for `stall_timeout_s`; ValueError without sound.
    """

    def __init__(
        self,
        info: VideoInfo,
        *,
        until_s: float = math.inf,
        stall_timeout_s: float = 60.0,
        rate_hz: int = SAMPLE_RATE_HZ,
    ) -> None:
        if info.audio_stream is None or info.audio_start_s is None:
            raise ValueError(f"{info.path} has no audio stream")
        arguments = ffmpeg_args.to_samples(info, info.audio_stream, rate_hz)
        super().__init__(info, Stage.AUDIO, arguments, stall_timeout_s)
        self._placement = Placement(info.origin_s, info.audio_start_s, info.audio_parts, rate_hz)
        self._num_broken = 0
        self._energy = 0.0
        self._rate_hz, self._until = rate_hz, until_s * rate_hz

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        num_samples, num_placed = 0, 0
        waiting = np.empty(0, np.float32)
        ended = False
        while not ended:
            samples = np.empty(BLOCK_SAMPLES, np.float32)
            num_bytes = self._read_into(memoryview(samples.data).cast("B"))
            samples = samples[: num_bytes // samples.itemsize]
            broken = ~np.isfinite(samples)
            self._num_broken += int(np.count_nonzero(broken))
            samples[broken] = 0
            self._energy += float(np.vdot(samples, samples))
            num_samples += len(samples)
            ended = len(samples) < BLOCK_SAMPLES
            for stamp in self._take_stamps(0, num_samples, ended):
                self._placement.add(stamp.time_s, stamp.num_samples * stamp.tick_s, stamp.after_samples)
            waiting = np.concatenate([waiting, samples]) if len(waiting) else samples
            # The times of what follows a sample decide where it lies.
            known = int((self._placement.joined_s - LOOK_AHEAD_S) * self._rate_hz) - num_placed
            count = len(waiting) if ended else max(0, known, len(waiting) - _MOST_WAITING_S * self._rate_hz)
            ready, waiting = waiting[:count], waiting[count:]
            num_placed += len(ready)
            try:
                for block in self._placement.place(ready):
                    yield block
                    if self._placement.position >= self._until:
                        self._ending = self._end(num_samples, stopped=True)
                        return
            except ValueError as error:
                raise MediaError(self._path, Stage.AUDIO, str(error)) from error
        self._ending = self._end(num_samples, stopped=False)

    def real_spans(self) -> list[tuple[float, float]]:
        """Where there is real sound: [start, end) in s from the origin. Raises RuntimeError too early."""
        return self._placement.real_spans() if self.ending else []

    def _end(self, num_samples: int, stopped: bool) -> Ending:
        truncated, warnings, placement = False, list[str](), self._placement
        if not stopped:  # else what ffmpeg says of its end is our doing
            truncated, damage = self._finish(num_samples)
            warnings += damage
            channels, mono_power = self._info.audio_channels, self._energy / num_samples
            # Mean square over all channels, before they became one; 0 where it is unknown.
            with self._log.changed:
                power = self._log.channels_energy / max(1.0, self._log.channels_samples)
            # Channels that have nothing in common lose a factor of their number.
            if channels > 1 and power > _SILENT_POWER and mono_power * channels * _CANCELLED < power:
                lost_db = 10 * math.log10(power / max(mono_power, _SILENT_POWER))
                words = f"its {channels} channels cancel each other: mono is {lost_db:.0f} dB quieter than they are"
                warnings.append(f"{words} (one microphone with its wires swapped?)")
        if placement.num_moves:
            warnings.append(f"sound moved to its times at {counted(placement.num_moves, 'place')}")
        if placement.drift_s:
            warnings.append(f"the sound's clock drifts: followed, by {placement.drift_s:.3f} s in all")
        if placement.num_impossible:
            impossible = counted(placement.num_impossible, "impossible time")
            warnings.append(f"{impossible} of sound: its samples were counted instead")
        if self._num_broken:
            warnings.append(f"{counted(self._num_broken, 'sample')} not a number: taken as zero")
        return Ending(truncated, tuple(warnings))


def is_torn_avi(path: Path) -> bool:
    """Whether an AVI ends within one of its parts, by the lengths that these say; empty chunks make none shorter."""
    size, at = path.stat().st_size, 0
    with path.open("rb") as file:
        while at + 8 <= size:
            file.seek(at)
            length = int.from_bytes(file.read(8)[4:], "little")
            at += 8 + length + length % 2
    return at > size + 1


def prefetch(items: Iterable[Item], end: Callable[[], None]) -> Generator[Item, None, None]:
    """Yield `items` with the next one read meanwhile in a thread: one more item is in memory. Close it (`closing`).

    `end` makes a read that waits come to its end; it is called when the generator is closed. What reading raises is
    raised where the item would have been.
    """
    source = iter(items)
    with ThreadPoolExecutor(1, "prefetch") as reader:
        try:
            waiting = reader.submit(next, source, None)
            while (item := waiting.result()) is not None:
                waiting = reader.submit(next, source, None)
                yield item
        finally:
            end()
