"""What ffmpeg says while it decodes: the time of every frame, and signs of damage. Starts nothing.

    [Parsed_showinfo_0 @ 0x55] [info] config in time_base: 1/12800, …
    [Parsed_showinfo_0 @ 0x55] [info] n:   7 pts:   3584 pts_time:0.28 …      pts · time_base
    [Parsed_ashowinfo_1 @ 0x55] [info] n:7 pts:7168 … rate:44100 nb_samples:1024  time base 1/rate (by asettb)
    [ashowinfo@resampled @ 0x55] [info] n:7 pts:2601 … nb_samples:371   what the resampler has given
    [h264 @ 0x55] [error] Invalid NAL unit size (1932 > 1860).
    [info] Exiting normally, received signal 15.                             and the code is 255, as of other errors

`pts_time` has six significant digits only: too few after 17 minutes, so it is never used.
Tested by tests/pipeline/media/test_ffmpeg_log.py.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from dataclasses import dataclass, replace
from typing import IO

from .types import LATEST_S

# Decoders work ahead of what is shown: up to 16 threads and 16 reordered frames.
END_FRAMES = 32
_KEPT_LINES = 40
_LINE_BYTES = 1 << 16

_FILTER = rb"\[Parsed_a?showinfo_\d+ @ \w+\] \[info\] "
_TIME_BASE = re.compile(_FILTER + rb"config in time_base: (\d+)/(\d+)")
_FRAME = re.compile(_FILTER + rb"n:\s*(\d+) pts:\s*(-?\d+|NOPTS)\s")
_RESAMPLED = re.compile(rb"\[ashowinfo@resampled @ \w+\] \[info\] n:\d+ .* nb_samples:(\d+)")
_SHAPE = re.compile(rb" sar:(\d+)/(\d+) s:(\d+)x(\d+) ")
_LOUDNESS = re.compile(rb"\[Parsed_astats_\d+ @ \w+\] \[info\] (RMS level dB|Number of samples): (-?[\d.]+|-inf)\s*$")
_AUDIO = re.compile(rb" rate:(\d+) nb_samples:(\d+)")
_POSITION = re.compile(rb" pos:\s*(-?\d+) ")
_SPOKEN = re.compile(r"(?:\[(?P<who>[^\]]*?) @ \w+\] )?\[(?P<level>warning|error|fatal|panic)\] (?P<words>.*)")
_SIGNALLED = re.compile(rb"\[info\] Exiting normally, received signal (\d+)")
_DAMAGE = re.compile(r"corrupt|PES packet size mismatch")
# The file itself ends too early. MPEG-TS calls a packet corrupt too after one that was lost.
_TORN = re.compile(r"partial file|ended prematurely|Packet corrupt|truncat", re.IGNORECASE)
# A last chunk with nothing in it is no sign of an early end; what decodes badly has more to complain of.
_EMPTY = re.compile(r"missing picture|no frame!|No JPEG data|Error while decoding stream")
# Complaints of a decoder about its last frames: as many as it may reorder.
_LAST_FRAMES = 3
# Complaints about what we asked for, not about the file.
_OURS = ("null", "rawvideo", "f32le", "swscaler", "out#", "Parsed_", "auto_")


@dataclass(frozen=True)
class Stamp:
    """Time of a decoded frame: `pts` in ticks of `num / den` s (None: unknown); audio frames have samples.

    `after_samples`: the filters were built anew for this frame, when so many resampled ones had come out.
    """

    pts: int | None
    num: int
    den: int
    num_samples: int = 0
    after_samples: int | None = None

    @property
    def time_s(self) -> float | None:
        """Presentation time in s on the container's clock; None too where it is beyond all clocks."""
        time_s = None if self.pts is None else self.pts * self.num / self.den
        return time_s if time_s is not None and abs(time_s) <= LATEST_S else None

    @property
    def tick_s(self) -> float:
        """The smallest difference of two times, s; of sound it is one sample."""
        return self.num / self.den


@dataclass(frozen=True)
class Complaint:
    """A warning or an error of ffmpeg's, and how many frames had been shown before it.

    `is_torn`: the file ends too early, says its reader; `is_empty`: about a packet with nothing to decode.
    """

    words: str
    is_damage: bool
    after_frames: int
    is_torn: bool = False
    is_empty: bool = False


class Log:
    """Reads ffmpeg's stderr in a thread of its own, so that ffmpeg never waits; stamps queue up in order.

    `signal`: the one that ended ffmpeg before its time. `shift_s` is what was added to every time of the file.
    """

    def __init__(self, shift_s: int = 0) -> None:
        self.stamps: deque[Stamp] = deque()
        self.num_frames = 0
        self.num_resampled = 0
        self._shift_s = shift_s
        self.ended = False
        self.signal: int | None = None
        self.changed = threading.Condition()
        self._complaints: deque[Complaint] = deque(maxlen=_KEPT_LINES)
        self._time_base = (1, 1)
        self._next_n = 0
        self._gives_positions = False
        self.shapes: dict[tuple[int, int, float], None] = {}  # width, height, aspect of a pixel: each once, in order
        self.channels_energy, self.channels_samples = 0.0, 0.0  # of the sound before its channels become one
        self._rms = 0.0

    def follow(self, stderr: IO[bytes]) -> None:
        """Read to the end of the stream; the body of the thread."""
        try:
            while line := stderr.readline(_LINE_BYTES):
                with self.changed:
                    self.feed(line)
                    self.changed.notify_all()
        finally:
            with self.changed:
                self.ended = True
                self.changed.notify_all()

    def feed(self, line: bytes) -> None:
        """Take in one line."""
        if match := _LOUDNESS.match(line):
            value = float(match[2])
            if match[1].startswith(b"RMS"):
                self._rms = 10 ** (value / 20)
            else:  # follows the level: one more part of the sound (between two changes of layout) is complete
                self.channels_energy += self._rms**2 * value
                self.channels_samples += value
                self._rms = 0.0
        elif match := _FRAME.match(line):
            self._frame(int(match[1]), match[2], line)
        elif match := _RESAMPLED.match(line):
            self.num_resampled += int(match[1])
        elif match := _TIME_BASE.match(line):
            self._time_base = int(match[1]), int(match[2])
            self._next_n = 0  # the filters were built anew (another size, another rate) and count from 0 again
        elif match := _SIGNALLED.match(line):
            self.signal = int(match[1])
        elif spoken := _SPOKEN.match(line.decode(errors="replace")):
            who, words = spoken["who"] or "", spoken["words"].strip()
            is_damage = spoken["level"] != "warning" or _DAMAGE.search(words) is not None
            complaint = Complaint(
                words=f"{who}: {words}" if who else words,
                is_damage=is_damage and not who.startswith(_OURS),
                after_frames=self.num_frames,
                is_torn=not who.startswith("mpegts") and _TORN.search(words) is not None,
                is_empty=_EMPTY.search(words) is not None,
            )
            self._complaints.append(complaint)

    def take(self) -> list[Stamp]:
        """The stamps that have come, but the newest of sound before the end: the next line may put it right."""
        held = [self.stamps.pop()] if self.stamps and self.stamps[-1].num_samples and not self.ended else []
        taken = list(self.stamps)
        self.stamps = deque(held)
        return taken

    def words(self) -> str:
        """The last of ffmpeg's complaints, without addresses."""
        with self.changed:
            spoken = list(dict.fromkeys(each.words for each in self._complaints))
        return "; ".join(spoken[-4:])

    def damage(self) -> tuple[str, ...]:
        """Every distinct sign of damage that is remembered."""
        with self.changed:
            return tuple(dict.fromkeys(each.words for each in self._complaints if each.is_damage))

    def ended_in_damage(self) -> bool:
        """Whether the file is torn at its end, or its very last frames are damaged; before any frame it is the head's.

        The reader of the file is ahead of what is shown by `END_FRAMES`. One damaged frame with good ones after it is
        not an end, nor is a packet with nothing in it.
        """
        with self.changed:
            return any(
                each.is_damage
                and not each.is_empty
                and each.after_frames >= max(1, self.num_frames - (END_FRAMES if each.is_torn else _LAST_FRAMES))
                for each in self._complaints
            )

    def _frame(self, n: int, pts: bytes, line: bytes) -> None:
        audio = _AUDIO.search(line)
        num, den = (1, int(audio[1])) if audio else self._time_base
        num_samples = int(audio[2]) if audio else 0
        if n == 0:
            self._next_n = 0
        lost = max(0, min(n - self._next_n, END_FRAMES))  # lines that another thread's words had torn apart
        self.stamps.extend([Stamp(None, num, den, num_samples)] * lost)
        self.num_frames += lost
        self._next_n = n + 1
        if not audio and len(self.shapes) < _KEPT_LINES and (shape := _SHAPE.search(line)):
            aspect = int(shape[1]) / int(shape[2]) if int(shape[1]) and int(shape[2]) else 1.0
            self.shapes[int(shape[3]), int(shape[4]), aspect] = None
        after = self.num_resampled if audio and n == 0 and self.num_frames else None
        ticks = None if pts == b"NOPTS" else int(pts) - self._shift_s * den // num
        if audio and ticks is not None:
            self._fix_late_rate(ticks, den)
        if audio and (position := _POSITION.search(line)):
            # A frame that does not begin a packet of the file has no time there: the reader guesses one.
            ticks = None if position[1] == b"-1" and self._gives_positions else ticks
            self._gives_positions |= position[1] != b"-1"
        self.stamps.append(Stamp(ticks, num, den, num_samples, after))
        self.num_frames += 1

    def _fix_late_rate(self, ticks: int, rate_hz: int) -> None:
        """Correct the time of the frame before, where its decoder (MP2's, MP3's) noticed a new rate a frame late.

        ffmpeg has counted it in ticks of the new rate already: in these it ends about where this frame begins.
        """
        before = self.stamps[-1] if self.stamps else None
        if before is None or before.pts is None or before.den == rate_hz:
            return
        before_ticks, begin_ticks = before.pts + self._shift_s * before.den, ticks + self._shift_s * rate_hz
        end_ticks = before_ticks + before.num_samples
        off_s = abs(end_ticks - begin_ticks) / rate_hz
        if off_s < min(before.num_samples / rate_hz, abs(end_ticks / before.den - begin_ticks / rate_hz)):
            pts = round(before_ticks * before.den / rate_hz) - self._shift_s * before.den
            self.stamps[-1] = replace(before, pts=pts)
