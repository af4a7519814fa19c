"""Pictures with times of their own, and the sound of a video, to an MP4: one ffmpeg as a child of ours.

    pictures, times ─ raw Matroska, in µs ─► stdin ─┐
                                                    ├─ ffmpeg ─ H.264 at 90 kHz, AAC ─► OUT.mp4
    the video that the sound is taken from ─────────┘

Raw pictures have no times, and at a constant rate those of a phone's video would be lost; in Matroska each has one.
Tested by tests/pipeline/media/test_writer.py.
"""

from __future__ import annotations

import os
import select
import subprocess
import threading
from collections import deque
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ...features_store.records.failures import Stage
from . import process
from .ffmpeg_args import to_drawn
from .types import MediaError, VideoInfo

_KEPT_LINES = 40
_END_WAIT_S = 600.0  # for what it has not encoded yet, and for the index at the head of the file
_TICKS_A_S = 1_000_000
_WHOLE = 1 << 56  # the mark of a length of eight bytes
_UNKNOWN_LENGTH = bytes.fromhex("01FFFFFFFFFFFFFF")


def _element(number: str, *content: bytes) -> bytes:
    """An element of Matroska: its number (hexadecimal), its length, its content."""
    body = b"".join(content)
    return bytes.fromhex(number) + (len(body) | _WHOLE).to_bytes(8, "big") + body


def _number(value: int) -> bytes:
    return value.to_bytes(8, "big")


class PictureWriter:
    """A context manager: pictures are written one after the other, and at its end the file is there.

    `size_px`: width and height, even numbers; `info`: the video whose sound is taken, from its origin on; `last_s`: how
    long the last picture is shown; `sound`: a wav file in place of the video's. Raises ValueError for other sizes;
    MediaError, with ffmpeg's own words, where it cannot encode or gives no room for `stall_timeout_s`: what is left of
    the file then is for the caller to remove.
    """

    def __init__(
        self,
        path: Path,
        size_px: tuple[int, int],
        info: VideoInfo,
        last_s: float,
        stall_timeout_s: float = 60.0,
        sound: Path | None = None,
    ) -> None:
        if size_px[0] % 2 or size_px[1] % 2:
            raise ValueError(f"width and height of an MP4 are even, got {size_px[0]} × {size_px[1]}")
        self._path, self._size_px, self._info, self._timeout_s = path, size_px, info, stall_timeout_s
        self._last_s = last_s
        self._sound = None if sound is None else os.fspath(sound)
        self._complaints: deque[bytes] = deque(maxlen=_KEPT_LINES)

    def __enter__(self) -> Self:
        version, has_h264 = process.ffmpeg_version(), "libx264" in process.encoders()
        arguments = to_drawn(self._info, version, os.fspath(self._path), self._sound, h264=has_h264)
        self._process = process.start(arguments, os.fspath(self._path), stdin=subprocess.PIPE)
        if self._process.stdin is None or self._process.stderr is None:
            raise ValueError("pictures go through a pipe")
        self._stdin = self._process.stdin.fileno()
        os.set_blocking(self._stdin, False)
        self._poll = select.poll()
        self._poll.register(self._stdin, select.POLLOUT)
        said = iter(partial(self._process.stderr.readline, 1 << 12), b"")
        self._listener = threading.Thread(target=self._complaints.extend, args=(said,), daemon=True)
        self._listener.start()
        width_px, height_px = self._size_px
        video = (_element("B0", _number(width_px)), _element("BA", _number(height_px)), _element("2EB524", b"RGB\x18"))
        # Of the duration of each block ffmpeg takes no notice at the end, and players drop what is shown for no time.
        usual = _element("23E383", _number(round(self._last_s * 1_000_000_000)))
        track = (_element("D7", _number(1)), _element("73C5", _number(1)), _element("83", _number(1)), usual)
        scale = _element("2AD7B1", _number(1_000_000_000 // _TICKS_A_S))
        head = _element("1A45DFA3", _element("4282", b"matroska"), _element("4287", _number(4)))
        head += bytes.fromhex("18538067") + _UNKNOWN_LENGTH
        head += _element("1549A966", scale, _element("4D80", b"avfuse"), _element("5741", b"avfuse"))
        head += _element("1654AE6B", _element("AE", *track, _element("86", b"V_UNCOMPRESSED"), _element("E0", *video)))
        self._send(head)
        return self

    def write(self, pixels: NDArray[np.uint8], time_s: float, duration_s: float) -> None:
        """Show `pixels` uint8 [H, W, 3] RGB from `time_s` on, in s from the video's origin, for `duration_s`.

        Raises ValueError for pixels of another shape or type.
        """
        width_px, height_px = self._size_px
        if pixels.shape != (height_px, width_px, 3) or pixels.dtype != np.uint8:
            raise ValueError(f"a picture is uint8 {(height_px, width_px, 3)}, got {pixels.dtype} {pixels.shape}")
        block = _element("A1", b"\x81\x00\x00\x00", pixels.tobytes())
        duration = _element("9B", _number(max(1, round(duration_s * _TICKS_A_S))))
        start = _element("E7", _number(max(0, round(time_s * _TICKS_A_S))))
        self._send(_element("1F43B675", start, _element("A0", block, duration)))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Let ffmpeg end; after an error end it. Raises MediaError where it could not encode."""
        if kind is not None:
            self._process.kill()
        code = self._finish()
        if code and kind is None:
            raise self._refusal(code)

    def _finish(self) -> int:
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            code = self._process.wait(_END_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._listener.join(self._timeout_s)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        return code

    def _send(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            if not self._poll.poll(self._timeout_s * 1000):
                words = f"ffmpeg took nothing for {self._timeout_s:g} s and was stopped: is the disk slow?"
                raise MediaError(os.fspath(self._path), Stage.ENCODE, words, is_transient=True)
            try:
                left = left[os.write(self._stdin, left) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise self._refusal(self._finish()) from None

    def _refusal(self, code: int) -> MediaError:
        path = os.fspath(self._path)
        if why := process.ended_from_outside(code):
            return MediaError(path, Stage.ENCODE, f"ffmpeg {why}", is_transient=True)
        said = " ".join(b"".join(self._complaints).decode(errors="replace").split())
        return MediaError(path, Stage.ENCODE, f"cannot be written: {said[-500:] or f'ffmpeg ended with {code}'}")
