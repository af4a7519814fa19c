"""One ffmpeg or ffprobe as a child of ours: started, kept within a bound of memory, asked and answered.

    memory of a child      3 GiB (Linux: RLIMIT_DATA; elsewhere -max_alloc and -max_pixels alone hold it back)
    its answer             16 MiB, and the last 40 lines of its complaints
    signals                Ctrl-C reaches us alone; a child that is ended from outside says nothing about its file

Tested by tests/faults/zoo, tests/faults/test_stop.py and tests/pipeline/media/test_readers.py.
"""

from __future__ import annotations

import functools
import os
import re
import resource
import select
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Generator
from contextlib import suppress
from functools import partial
from typing import IO

from ...features_store.records.failures import Stage
from .types import MAX_STREAMS, MediaError

# An 8K film takes 0.7 GB with four threads; a file that asks for more than this is made to do harm.
MOST_MEMORY_BYTES = 3 << 30
_MOST_ANSWER_BYTES = 16 << 20
_KEPT_LINES = 40
_LINE_BYTES = 1 << 12
_TIMEOUT_S = 60.0
# A user, a queue or a system short of memory sends these; a file can only bring others about.
_FROM_OUTSIDE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
_PLAYLISTS = ("hls", "concat", "dash", "imf", "sdp", "rtsp", "webm_dash_manifest")
_SOUND = ("wav", "mp3", "flac", "aac", "ac3", "eac3", "aiff", "au", "caf", "w64", "amr", "ape", "wv")
_REFUSED = re.compile(r"\[([\w,]+) @ \w+\] (?:\[\w+\] )?Format not on whitelist")
_TOO_LARGE = re.compile(r"Picture size (\d+)x(\d+) is invalid")
_ADDRESS = re.compile(r" @ 0x[0-9a-f]+\]")


def start(
    arguments: list[str], path: str, stdin: int = subprocess.DEVNULL, stderr: int | IO[bytes] = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    """Start ffmpeg or ffprobe, its memory bounded, with pipes for what it says.

    `stdin`: `subprocess.PIPE` where something is written to it; `stderr`: a file, where nobody reads while it runs.
    Raises MediaError without the program.
    """
    try:
        # A group of its own: a terminal's Ctrl-C is ours to answer, and is no fault of the file.
        process = subprocess.Popen(arguments, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, process_group=0)
    except FileNotFoundError:
        raise MediaError(path, Stage.START, "ffmpeg is not installed or not on PATH: apt-get install ffmpeg") from None
    # The limit is set from outside: nothing may run between fork and exec while there are threads.
    if hasattr(resource, "prlimit"):
        with suppress(ProcessLookupError, PermissionError):  # it has ended, or the system allows nobody to
            _, most = resource.prlimit(process.pid, resource.RLIMIT_DATA)
            wanted = MOST_MEMORY_BYTES if most == resource.RLIM_INFINITY else min(MOST_MEMORY_BYTES, most)
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (wanted, wanted))
    return process


def ended_from_outside(code: int) -> str:
    """Why a child that ended with `code` is to be run again; nothing where it ended by itself."""
    if -code not in _FROM_OUTSIDE:
        return ""
    return f"was ended from outside by {signal.Signals(-code).name}: did the machine run out of memory?"


def ask(arguments: list[str], path: str) -> str:
    """Run a short command to its end and return what it prints.

    Raises MediaError with its own words, ValueError without pipes to read from.
    """
    began_s = time.monotonic()
    complaints: deque[bytes] = deque(maxlen=_KEPT_LINES)
    with start(arguments, path) as process:
        timer = threading.Timer(_TIMEOUT_S, process.kill)
        timer.start()
        try:
            if process.stdout is None or process.stderr is None:
                raise ValueError("what ffmpeg says is read from pipes")
            # Both pipes are read at once, or a full one would stop it: a thread keeps the last lines of its complaints.
            said = iter(partial(process.stderr.readline, _LINE_BYTES), b"")
            listener = threading.Thread(target=complaints.extend, args=(said,), daemon=True)
            listener.start()
            out = process.stdout.read(_MOST_ANSWER_BYTES + 1)
            if len(out) > _MOST_ANSWER_BYTES:
                process.kill()
            process.wait()
            listener.join(_TIMEOUT_S)
        finally:
            timer.cancel()
            process.kill()  # it has ended by now, or is not wanted any more
    if process.returncode < 0 and time.monotonic() - began_s >= _TIMEOUT_S:
        raise MediaError(path, Stage.PROBE, f"{arguments[0]} took more than {_TIMEOUT_S:g} s", is_transient=True)
    if len(out) > _MOST_ANSWER_BYTES:
        raise MediaError(path, Stage.PROBE, f"{arguments[0]} printed more than {_MOST_ANSWER_BYTES >> 20} MiB about it")
    if why := ended_from_outside(process.returncode):
        raise MediaError(path, Stage.PROBE, f"{arguments[0]} {why}", is_transient=True)
    if process.returncode:
        raise MediaError(path, Stage.PROBE, why_refused(b"".join(complaints).decode(errors="replace")))
    return out.decode(errors="replace")


def lines(arguments: list[str], path: str, stall_timeout_s: float) -> Generator[bytes, None, None]:
    """What a command prints, line by line, for as long as it is read; it must be one that never complains.

    Raises MediaError where nothing comes for `stall_timeout_s`, ValueError without a pipe to read from.
    """
    with start(arguments, path) as process:
        if process.stdout is None:
            raise ValueError("lines are read from a pipe")
        waiting = select.poll()  # `select` cannot watch descriptors above 1023
        waiting.register(process.stdout, select.POLLIN)
        rest = b""
        try:
            while True:
                if not waiting.poll(stall_timeout_s * 1000):
                    words = f"gave nothing for {stall_timeout_s:g} s: is the disk or the network slow?"
                    raise MediaError(path, Stage.PROBE, words, is_transient=True)
                data = os.read(process.stdout.fileno(), 1 << 16)
                if not data:
                    return
                *whole, rest = (rest + data).split(b"\n")
                yield from whole
        finally:
            process.kill()


@functools.cache
def ffmpeg_version() -> str:
    """Version of the ffmpeg in use, such as `5.1.9-0+deb12u1`. Raises MediaError without one."""
    said = ask(["ffmpeg", "-version"], "ffmpeg")
    return said.split(maxsplit=3)[2] if said.startswith("ffmpeg version ") else "unknown"


@functools.cache
def decoders() -> frozenset[str]:
    """Names of what this ffmpeg can decode, such as `h264`. Raises MediaError without ffmpeg."""
    said = ask(["ffmpeg", "-hide_banner", "-decoders"], "ffmpeg").partition("------")[2]
    return frozenset(line.split()[1] for line in said.splitlines() if len(line.split()) > 1)


@functools.cache
def encoders() -> frozenset[str]:
    """Names of what this ffmpeg can encode with, such as `libx264`. Raises MediaError without ffmpeg."""
    said = ask(["ffmpeg", "-hide_banner", "-encoders"], "ffmpeg").partition("------")[2]
    return frozenset(line.split()[1] for line in said.splitlines() if len(line.split()) > 1)


@functools.cache
def decodable_codecs() -> frozenset[str]:
    """Codecs that this ffmpeg has a decoder for, such as `av1`. Raises MediaError without ffmpeg."""
    said = ask(["ffmpeg", "-hide_banner", "-codecs"], "ffmpeg").partition("-------")[2]
    rows = (line.split() for line in said.splitlines())
    return frozenset(row[1] for row in rows if len(row) > 1 and row[0].startswith("D"))


def why_refused(said: str) -> str:
    """ffprobe's complaints as one line: what is wrong with the file and what to give instead."""
    if "exceeds max_streams" in said:
        return f"has more than {MAX_STREAMS} streams: damaged, or made to do harm"
    if size := _TOO_LARGE.search(said):
        return f"has frames of {size[1]} × {size[2]} px: more than 2^26 px, or damaged"
    refused = _REFUSED.search(said)
    names = refused[1].split(",") if refused else []
    if any(name in _PLAYLISTS for name in names):
        return f"is a playlist ({names[0]}): playlists are refused, give the media file itself"
    if any(name in _SOUND for name in names):
        return f"has no video stream (sound alone: {names[0]}): give a file with a picture track"
    if names:
        return f"is not a video container that avfuse reads (ffmpeg takes it for {names[0]})"
    lines = list(dict.fromkeys(_ADDRESS.sub("]", line.strip()) for line in said.splitlines() if line.strip()))
    return f"cannot be read as a video: {'; '.join(lines[-3:]) or 'ffmpeg gave no reason'}"
