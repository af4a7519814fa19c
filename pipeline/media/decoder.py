"""One ffmpeg that decodes one stream: bytes from its output, stamps from its log, an end in every case.

    ffmpeg ─┬─ stdout ─ bytes of frames or samples ─ who reads        it waits while nobody reads
            └─ stderr ─ log ─ a thread ─ stamps                       read at once, so that it never waits

Tested by tests/pipeline/media/test_readers.py and tests/faults.
"""

from __future__ import annotations

import os
import select
import subprocess
import threading
from types import TracebackType
from typing import IO, Self

from ...features_store.records.failures import Stage
from . import ffmpeg_args, process
from .ffmpeg_log import Log, Stamp
from .types import Ending, MediaError, VideoInfo

_KILL_WAIT_S = 10.0
# The log is written before the data, and its thread has only to read it: longer takes a line that was torn.
_LOG_WAIT_S = 2.0


class Decoder:
    """A context manager around one ffmpeg that decodes one stream of a file; base of the readers."""

    _process: subprocess.Popen[bytes]
    _out: IO[bytes]
    _err: IO[bytes]
    _log: Log
    _thread: threading.Thread

    def __init__(self, info: VideoInfo, stage: Stage, arguments: list[str], stall_timeout_s: float) -> None:
        self._info, self._path, self._stage, self._arguments = info, str(info.path), stage, arguments
        self._timeout_s = stall_timeout_s
        self._poll = select.poll()  # `select` cannot watch descriptors above 1023
        self._is_open = False
        self._ending: Ending | None = None

    def __enter__(self) -> Self:
        self._process = process.start(self._arguments, self._path)
        if self._process.stdout is None or self._process.stderr is None:
            raise ValueError("ffmpeg's output and log are read from pipes")
        self._out, self._err = self._process.stdout, self._process.stderr
        self._log = Log(ffmpeg_args.shift_s(self._info))
        self._poll.register(self._out, select.POLLIN)
        self._thread = threading.Thread(target=self._log.follow, args=(self._err,), daemon=True)
        self._thread.start()
        self._is_open = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End ffmpeg, its thread and its pipes, whatever state they are in."""
        self.kill()
        self._process.wait(_KILL_WAIT_S)
        self._thread.join(_KILL_WAIT_S)
        self._out.close()
        self._err.close()

    def kill(self) -> None:
        """Make ffmpeg stop: a reader that waits comes to the end. From any thread."""
        self._process.kill()

    @property
    def ending(self) -> Ending:
        """How decoding ended. Raises RuntimeError before everything was read."""
        if self._ending is None:
            raise RuntimeError(f"{self._path} was not read to its end yet")
        return self._ending

    def _read_into(self, buffer: memoryview) -> int:
        """Fill `buffer`; fewer bytes at the end only. Raises MediaError when nothing comes for too long."""
        if not self._is_open:
            raise RuntimeError("open the reader first: with FrameReader(info) as reader")
        filled = 0
        while filled < len(buffer):
            if not self._poll.poll(self._timeout_s * 1000):
                raise self._stalled()
            count = os.readv(self._out.fileno(), [buffer[filled:]])
            if not count:
                break
            filled += count
        return filled

    def _take_stamps(self, frames: int, samples: int, ended: bool) -> list[Stamp]:
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

    def _finish(self, num_delivered: int) -> tuple[bool, tuple[str, ...]]:
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

    def _stalled(self) -> MediaError:
        self.kill()
        words = f"ffmpeg gave nothing for {self._timeout_s:g} s and was stopped: is the disk or the network slow?"
        words = "; ".join(filter(None, [words, self._log.words()]))
        return MediaError(self._path, self._stage, words, is_transient=True)
