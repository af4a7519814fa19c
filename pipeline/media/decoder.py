"""A running ffmpeg: bytes from its output, stamps from its log, an end in every case. Starts nothing."""

from __future__ import annotations

import os
import select
import subprocess
import threading

from . import process
from .ffmpeg_log import Log, Stamp
from .types import MediaError

_KILL_WAIT_S = 10.0
# The log is written before the data, and its thread has only to read it: longer takes a line that was torn.
_LOG_WAIT_S = 2.0


class Decoding:
    """One ffmpeg that decodes one stream to a pipe; a thread reads its log, so that neither waits."""

    def __init__(
        self, ffmpeg: subprocess.Popen[bytes], path: str, stage: str, stall_timeout_s: float, shift_s: int = 0
    ) -> None:
        if ffmpeg.stdout is None or ffmpeg.stderr is None:
            raise ValueError("ffmpeg's output and log are read from pipes")
        self._process, self._path, self._stage, self._timeout_s = ffmpeg, path, stage, stall_timeout_s
        self._out, self._err = ffmpeg.stdout, ffmpeg.stderr
        self._log = Log(shift_s)
        self._poll = select.poll()  # `select` cannot watch descriptors above 1023
        self._poll.register(self._out, select.POLLIN)
        self._thread = threading.Thread(target=self._log.follow, args=(self._err,), daemon=True)
        self._thread.start()

    def read_into(self, buffer: memoryview) -> int:
        """Fill `buffer`; fewer bytes at the end only. Raises MediaError when nothing comes for too long."""
        filled = 0
        while filled < len(buffer):
            if not self._poll.poll(self._timeout_s * 1000):
                raise self._stalled()
            count = os.readv(self._out.fileno(), [buffer[filled:]])
            if not count:
                break
            filled += count
        return filled

    def take_stamps(self, frames: int, samples: int, ended: bool) -> list[Stamp]:
        """The stamps that have come, once all that belong to so many frames and samples have, or the log has `ended`.

        Fewer where a line was lost: nobody waits for the log while ffmpeg waits for a reader of its data. Raises
        MediaError where the log does not end after the data has.
        """
        log = self._log

        def complete() -> bool:
            return log.ended or (not ended and log.num_frames >= frames and log.num_resampled >= samples)

        with log.changed:
            if not log.changed.wait_for(complete, self._timeout_s if ended else _LOG_WAIT_S) and ended:
                raise self._stalled()
            return log.take()

    def finish(self, num_delivered: int) -> tuple[bool, tuple[str, ...]]:
        """Wait for ffmpeg's end after its last byte: (ended in an error, signs of damage).

        Raises MediaError where nothing was delivered, or ffmpeg was ended by somebody else.
        """
        try:
            code = self._process.wait(self._timeout_s)
        except subprocess.TimeoutExpired:
            raise self._stalled() from None
        self._thread.join(self._timeout_s)
        if why := process.ended_from_outside(-self._log.signal if self._log.signal else code):
            raise MediaError(self._path, self._stage, f"ffmpeg {why}", is_transient=True)
        if not num_delivered:
            why = self._log.words() or f"ffmpeg ended with {code} and said nothing"
            raise MediaError(self._path, self._stage, f"not one frame could be decoded: {why}")
        killed = (f"ffmpeg ended with {code}",) if code else ()
        return code != 0 or self._log.ended_in_damage(), (*killed, *self._log.damage())

    def shapes(self) -> list[tuple[int, int, float]]:
        """Width, height and pixels' aspect of the frames so far: each that occurred, in order."""
        with self._log.changed:
            return list(self._log.shapes)

    def channels_power(self) -> float:
        """Mean square of the sound's samples over all channels, before they became one; 0: unknown."""
        with self._log.changed:
            return self._log.channels_energy / max(1.0, self._log.channels_samples)

    def kill(self) -> None:
        """Stop ffmpeg; its pipes then come to their end."""
        if self._process.poll() is None:
            self._process.kill()

    def close(self) -> None:
        """End ffmpeg, its thread and its pipes, whatever state they are in."""
        self.kill()
        self._process.wait(_KILL_WAIT_S)
        self._thread.join(_KILL_WAIT_S)
        self._out.close()
        self._err.close()

    def _stalled(self) -> MediaError:
        self._process.kill()
        words = f"ffmpeg gave nothing for {self._timeout_s:g} s and was stopped: is the disk or the network slow?"
        return MediaError(
            self._path, self._stage, "; ".join(filter(None, [words, self._log.words()])), is_transient=True
        )
