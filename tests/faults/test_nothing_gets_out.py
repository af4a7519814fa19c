"""No video makes ffprobe or ffmpeg open another file or an address, whatever its suffix and its name say.

Canaries: a folder whose files must never be opened (the kernel tells of each open), siblings of the videos, and a
local server that nobody may call. That they sing is tested by ffprobe without our words.
"""

import ctypes
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import AudioReader, FrameReader
from avfuse.pipeline.media.types import MediaError
from avfuse.pipeline.runs.discover import VIDEO_SUFFIXES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which files are opened (inotify)")
IN_OPEN, IN_ISDIR = 0x20, 0x4000_0000


class Watch:
    """Names of files opened in a folder since the last question."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK)
        assert libc.inotify_add_watch(self._fd, os.fsencode(folder), IN_OPEN) >= 0, os.strerror(ctypes.get_errno())

    def opened(self) -> set[str]:
        names, events = set(), b""
        while chunk := self._read():
            events += chunk
        while events:
            _, mask, _, length = struct.unpack("iIII", events[:16])
            if not mask & IN_ISDIR:
                names.add(os.fsdecode(events[16 : 16 + length].rstrip(b"\0")))
            events = events[16 + length :]
        return names

    def _read(self) -> bytes:
        try:
            return os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        os.close(self._fd)


@dataclass(frozen=True)
class Trap:
    """`canary`: a whole clip that must stay closed; `address`: a server that must stay alone; `videos`: the bait."""

    canary: Path
    address: str
    videos: Path
    watch: Watch
    beside: Watch
    calls: list[str]

    def put(self, name: str, content: bytes) -> Path:
        path = self.videos / name
        path.write_bytes(content)
        return path

    def reached(self) -> list[str]:
        """What was opened or called that must not be."""
        strangers = {name for name in self.beside.opened() if name.startswith("sibling")}
        return [*self.watch.opened(), *strangers, *self.calls]


@pytest.fixture
def trap(tmp_path, tiny):
    private, videos = tmp_path / "private", tmp_path / "videos"
    private.mkdir()
    videos.mkdir()
    clip = tiny(".ts", "-c:v", "mpeg2video", "-r", "25").read_bytes()
    for path in (private / "canary.ts", videos / "sibling.ts", videos / "sibling001.jpg", videos / "sibling.sub"):
        path.write_bytes(clip)
    (videos / "sibling1.mp4").write_bytes(tiny().read_bytes())
    calls: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, args=(server, calls))
        thread.start()
        watch, beside = Watch(private), Watch(videos)
        yield Trap(private / "canary.ts", f"127.0.0.1:{server.getsockname()[1]}", videos, watch, beside, calls)
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        watch.close()
        beside.close()


def answer(server: socket.socket, calls: list[str]) -> None:
    while True:
        try:
            connection, caller = server.accept()
        except OSError:
            return
        calls.append(f"a call from {caller}")
        connection.close()


# --- what a stranger's file may say


def hls(*targets: str, tags: str = "") -> bytes:
    parts = "".join(f"#EXTINF:9,\n{target}\n" for target in targets)
    return f"#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:9\n{tags}{parts}#EXT-X-ENDLIST\n".encode()


def concat(target: str) -> bytes:
    return f"ffconcat version 1.0\nfile '{target}'\n".encode()


def dash(target: str) -> bytes:
    return (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        f'mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" '
        f'bandwidth="1"><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>'
    ).encode()


def imf(target: str) -> bytes:
    head = '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016">'
    return f"{head}<Id>urn:uuid:0</Id><EditRate>25 1</EditRate><a>{target}</a></CompositionPlaylist>".encode()


def sdp(address: str) -> bytes:
    host, _, port = address.partition(":")
    return (
        f"v=0\r\no=- 0 0 IN IP4 {host}\r\ns=x\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=video {port} RTP/AVP 96\r\n"
        f"a=rtpmap:96 H264/90000\r\na=control:rtsp://{address}/x\r\n"
    ).encode()


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body


def reference_movie(url: str) -> bytes:
    """QuickTime's way to name another movie."""
    rdrf = box(b"rdrf", struct.pack(">I4sI", 0, b"url ", len(url) + 1) + url.encode() + b"\0")
    return box(b"ftyp", b"qt  \0\0\0\0qt  ") + box(b"moov", box(b"rmra", box(b"rmda", rdrf)))


def elsewhere(clip: bytes, entry: bytes) -> bytes:
    """An MP4 whose samples lie in another file, as its data reference says."""
    at = clip.index(b"dref") - 4
    size = struct.unpack(">I", clip[at : at + 4])[0]
    new = box(b"dref", struct.pack(">II", 0, 1) + entry)
    grown, out = len(new) - size, clip[:at] + new + clip[at + size :]
    for name in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        begin = out.rindex(name, 0, at) - 4
        out = out[:begin] + struct.pack(">I", struct.unpack(">I", out[begin : begin + 4])[0] + grown) + out[begin + 4 :]
    return out


def alias(path: Path, levels: int) -> bytes:
    """A Macintosh alias as mov.c reads it: 150 bytes, then the path, absolute or relative by so many `levels`."""
    name = os.fsencode(path)
    name += b"\0" * (len(name) % 2)
    record = bytes(130) + struct.pack(">HH", levels, levels) + bytes(16)
    return box(b"alis", bytes(4) + record + struct.pack(">HH", 2, len(name)) + name + struct.pack(">HH", 0xFFFF, 0))


def tricks(trap: Trap, mp4: bytes) -> dict[str, bytes]:
    """Every way known to us to name another file or an address in a file's content."""
    path, url = str(trap.canary), f"http://{trap.address}/a.ts"
    key = f'#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n'
    init = f'#EXT-X-MAP:URI="{path}"\n'
    audio = f'#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="a",URI="{url}"\n#EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO="a"\n'
    protocols = {
        "file": f"file:{path}",
        "subfile": f"subfile,,start,0,end,10000,,:{path}",
        "concat": f"concat:{path}|{path}",
        "crypto": f"crypto:{path}",
        "cache": f"cache:{path}",
        "async": f"async:{path}",
        "tee": f"tee:{path}",
        "data": "data:video/mp2t;base64,R0AREABC8CUAAcEAAP8B",
        "tcp": f"tcp://{trap.address}",
        "rtmp": f"rtmp://{trap.address}/a",
        "rtsp": f"rtsp://{trap.address}/a",
        "tls": f"tls://{trap.address}",
        "ftp": f"ftp://{trap.address}/a",
        "gopher": f"gopher://{trap.address}/a",
        "sibling": "sibling.ts",
        "parent": "../private/canary.ts",
    }
    return {
        **{f"hls_{name}": hls(target) for name, target in protocols.items()},
        "hls_path": hls(path),
        "hls_http": hls(url, path),
        "hls_key": hls(path, tags=key),
        "hls_map": hls("sibling.ts", tags=init),
        "hls_audio": hls(tags=audio),
        "concat_path": concat(path),
        "concat_http": concat(url),
        "concat_sibling": concat("sibling.ts"),
        "concat_plain": f"file '{path}'\n".encode(),
        "dash_path": dash(f"file://{path}"),
        "dash_http": dash(url),
        "imf": imf(path),
        "sdp": sdp(trap.address),
        "asx": f'<asx version="3.0"><entry><ref href="{url}"/></entry></asx>'.encode(),
        "asf_reference": f"[Reference]\nRef1={url}\nRef2={path}\n".encode(),
        "ram": f"rtsp://{trap.address}/a.rm\n{url}\nfile://{path}\n".encode(),
        "rtsptext": f"RTSPtextRTSP://{trap.address}/a.mov".encode(),
        "smil": f'<smil><body><video src="{url}"/><video src="{path}"/></body></smil>'.encode(),
        "vobsub": b"# VobSub index file, v7\nid: en, index: 0\ntimestamp: 00:00:00:000, filepos: 000000000\n",
        "swf": b"FWS\x06\x40\0\0\0" + url.encode() + bytes(64),
        "lavfi": f"movie={path}".encode(),
        "svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{url}"/></svg>'.encode(),
        "reference_movie": reference_movie(url),
        "dref_url": elsewhere(mp4, box(b"url ", bytes(4) + f"file://{path}\0".encode())),
        "dref_http": elsewhere(mp4, box(b"url ", bytes(4) + url.encode() + b"\0")),
        "dref_alias": elsewhere(mp4, alias(trap.canary, 0)),
        "dref_sibling": elsewhere(mp4, alias(trap.videos / "sibling1.mp4", 1)),
    }


# Every way is tried under two suffixes; of these, one for each reader of ffmpeg's, the playlists and a third of the
# others under each suffix, and with AVFUSE_TRICKS=all all.
PLAYLISTS = ("hls_path", "concat_path", "dash_path")
READERS = (
    "hls_http",
    "hls_sibling",
    "imf",
    "sdp",
    "asx",
    "ram",
    "rtsptext",
    "vobsub",
    "swf",
    "reference_movie",
    "dref_alias",
)


QUICK = (".avi", ".mkv", ".mov", ".mp4", ".webm")


@pytest.mark.parametrize(
    "suffix", [pytest.param(each, marks=() if each in QUICK else pytest.mark.slow) for each in sorted(VIDEO_SUFFIXES)]
)
def test_no_content_reaches_out_under_any_suffix(trap, tiny, suffix):
    wanted = tricks(trap, tiny().read_bytes())
    shares = 1 if os.environ.get("AVFUSE_TRICKS") == "all" else 3
    part = READERS[sorted(VIDEO_SUFFIXES).index(suffix) % shares :: shares]
    names = wanted if suffix in (".mp4", ".ts") else (*PLAYLISTS, *part)
    made = [trap.put(f"{name}{suffix}", wanted[name]) for name in names]
    with ThreadPoolExecutor(2) as pool:
        answers = dict(zip(made, pool.map(look, made), strict=True))
    assert trap.reached() == []
    playlists = {path.stem: words for path, words in answers.items() if path.stem.startswith(("hls", "concat", "dash"))}
    assert all(words for words in playlists.values()), "a playlist was taken for a video"
    assert "playlist" in playlists["hls_path"]


def look(path: Path) -> str:
    """Probe, and decode what can be; the reason where it cannot."""
    try:
        info = probe(path)
        with FrameReader(info) as frames:
            list(frames)
    except MediaError as error:
        return error.words
    return ""


@pytest.mark.parametrize(
    "names", [(*PLAYLISTS, *READERS), pytest.param((), marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_ffmpeg_itself_refuses_what_ffprobe_did_not_see(trap, tiny, names):
    """A file replaced by a playlist between probing and decoding."""
    info, wanted = probe(tiny()), tricks(trap, tiny().read_bytes())
    for name in names or wanted:
        swapped = replace(info, path=trap.put(f"{name}.mp4", wanted[name]))
        for reader in (FrameReader, AudioReader):
            assert decoded(reader, swapped) == 0 or name.startswith("dref"), name
    assert trap.reached() == []


def decoded(reader: Callable[..., Any], info) -> int:
    try:
        with reader(info, stall_timeout_s=20) as opened:
            return sum(1 for _ in opened)
    except MediaError as error:
        if "not one frame" not in error.words:
            raise
        return 0


@pytest.mark.parametrize(
    ("trick", "words"),
    [
        ("hls_path", ["-allowed_extensions", "ALL"]),
        ("hls_http", ["-allowed_extensions", "ALL"]),
        ("hls_sibling", ["-allowed_extensions", "ALL"]),
        ("concat_path", ["-safe", "0"]),
        ("concat_http", ["-safe", "0"]),
        ("dref_alias", ["-enable_drefs", "1", "-use_absolute_path", "1"]),
        ("dref_sibling", ["-enable_drefs", "1"]),
    ],
)
def test_the_canary_sings(trap, tiny, trick, words):
    """Without our words ffprobe follows: what the other tests rest on."""
    path = trap.put("bait.mp4", tricks(trap, tiny().read_bytes())[trick])
    everything = "file,http,tcp,subfile,concat,crypto,data"
    subprocess.run(
        ["ffprobe", "-v", "error", "-protocol_whitelist", everything, *words, path],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert trap.reached() != []


NAMES = (
    "-i.mp4",
    "--help.mp4",
    "sibling%d.mp4",
    "sibling%03d.mp4",
    "sibling[0-9].mp4",
    "sibling?.mp4",
    "sibling*.mp4",
    "file:sibling1.mp4",
    "pipe:0.mp4",
    "concat:sibling.ts|sibling.ts.mp4",
    "subfile,,start,0,end,99,,:sibling1.mp4",
    "crypto:sibling1.mp4",
    "async:cache:sibling1.mp4",
    "data:video;base64,AAAA.mp4",
    "lavfi:testsrc.mp4",
    "$(touch sibling1).mp4",
    "a;b&c|d.mp4",
    "~.mp4",
)


FEW = ("-i.mp4", "sibling%d.mp4", "concat:sibling.ts|sibling.ts.mp4", "lavfi:testsrc.mp4")


@pytest.mark.parametrize("name", [pytest.param(each, marks=() if each in FEW else pytest.mark.slow) for each in NAMES])
def test_a_name_is_a_name(trap, tiny, name, monkeypatch):
    """Two frames are the file's own; the clips that the name seems to mean have ten."""
    clip = tiny(seconds=0.2).read_bytes()
    path = trap.put(name, clip)
    trap.beside.opened()
    monkeypatch.chdir(trap.videos)
    for given in (path, name):
        with FrameReader(probe(given)) as frames:
            assert sum(len(batch.time_s) for batch in frames) == 2
    assert trap.beside.opened() == {name}
    assert trap.reached() == []


def test_a_folder_is_no_address(trap, tiny, monkeypatch):
    """`http:/127.0.0.1:80/a.mp4` as a relative path."""
    folder = trap.videos / "http:" / trap.address
    folder.mkdir(parents=True)
    (folder / "a.mp4").write_bytes(tiny(seconds=0.2).read_bytes())
    monkeypatch.chdir(trap.videos)
    info = probe(f"http://{trap.address}/a.mp4")
    assert info.path == folder / "a.mp4"
    assert trap.reached() == []
