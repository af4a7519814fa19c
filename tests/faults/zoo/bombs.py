"""Hand-made files that ask for more than there is: small on disk, endless or huge where they are believed."""

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

from boxes import build, changed, in_avi, numbers, parse, put, tracks
from seeds import ffmpeg

HUGE_PX = 30_000
YEAR_S = 365 * 86_400


def bombs(clips: Mapping[str, bytes], folder: Path) -> dict[str, bytes]:
    """Every bomb by its file name."""
    folder.mkdir(parents=True, exist_ok=True)
    mp4, avi = clips["h264_aac.mp4"], clips["mpeg4_pcm.avi"]
    made = {
        **sizes(clips, avi),
        **counts(mp4, avi),
        **sounds(avi),
        **clocks(mp4),
        **turned(mp4),
        **remuxed(folder, clips),
    }
    return {f"bomb_{name}": data for name, data in made.items()}


def sizes(clips: Mapping[str, bytes], avi: bytes) -> dict[str, bytes]:
    """Claims of 30,000 × 30,000 px, where the container has them and where the codec has them."""
    jpeg, png, vp8 = clips["mjpeg.mov"], clips["png.mov"], clips["vp8.webm"]
    frame = jpeg.index(b"\xff\xc0") + 5
    header = png.index(b"IHDR") + 4
    key = vp8.index(b"\x9d\x01\x2a") + 3
    rgb = in_avi(in_avi(avi, b"strf", 4, "<ii", HUGE_PX, HUGE_PX), b"strf", 16, "<I", 0)
    raw = f"YUV4MPEG2 W{HUGE_PX} H{HUGE_PX} F25:1 C420\nFRAME\n".encode() + bytes(1000)
    dots = struct.pack(">II", HUGE_PX, HUGE_PX)
    crc = struct.pack(">I", zlib.crc32(b"IHDR" + dots + png[header + 8 : header + 13]))
    return {
        "size_jpeg.mov": jpeg[:frame] + struct.pack(">HH", HUGE_PX, HUGE_PX) + jpeg[frame + 4 :],
        "size_png.mov": png[:header] + dots + png[header + 8 : header + 13] + crc + png[header + 17 :],
        "size_vp8.webm": vp8[:key] + b"\xff\x3f\xff\x3f" + vp8[key + 4 :],
        "size_bitmap.avi": rgb,
        "size_header.avi": in_avi(avi, b"strf", 4, "<ii", HUGE_PX, HUGE_PX),
        "size_raw.y4m": raw,
        "size_tall.y4m": raw.replace(b"W30000 H30000", b"W1 H60000000"),
    }


def counts(mp4: bytes, avi: bytes) -> dict[str, bytes]:
    """Claims of 10⁹ frames, one frame named again and again, 1,000 streams, edits without end."""
    boxes = parse(mp4)
    next(box for box in boxes if box[0] == b"moov")[1].extend([tracks(boxes)[0]] * 1000)
    million = numbers(0, 1, 10**9, 1024)
    edits = numbers(0, 2000) + numbers(1000, 0, 0x10000) * 2000
    same = 3000
    often = {
        "stss": None,
        "ctts": None,
        "elst": None,
        "stts": numbers(0, 1, same, 1024),
        "stsc": numbers(0, 1, 1, 1, 1),
    }
    return {
        "frames_table.mp4": changed(
            mp4, 0, stss=None, ctts=None, stts=million, stsz=numbers(0, 100, 10**9), stsc=numbers(0, 1, 1, 10**9, 1)
        ),
        "frames_memory.mp4": changed(
            mp4, 0, stss=None, ctts=None, stts=million, stsz=numbers(0, 9, 10**8), stsc=numbers(0, 1, 1, 10**8, 1)
        ),
        "frames_header.avi": in_avi(in_avi(avi, b"avih", 16, "<I", 10**9), b"strh", 32, "<I", 10**9),
        "frames_again.mp4": changed(
            mp4,
            0,
            **often,
            stsz=lambda body: numbers(0, 0, same) + body[12:16] * same,
            stco=lambda body: numbers(0, same) + body[8:12] * same,
        ),
        "streams_1000.mp4": build(boxes),
        "edits.mp4": changed(mp4, 0, elst=edits),
    }


def sounds(avi: bytes) -> dict[str, bytes]:
    """Absurd rates, channels, bits and block sizes of plain PCM."""
    rates = {"zero": 0, "one": 1, "huge": 0xFFFF_FFFF, "half": 0x7FFF_FFFF}
    made = {f"rate_{name}.avi": in_avi(avi, b"strf", 4, "<I", rate, nth=1) for name, rate in rates.items()}
    for channels in (0, 255, 65_535):
        made[f"channels_{channels}.avi"] = in_avi(avi, b"strf", 2, "<H", channels, nth=1)
    made["bits_0.avi"] = in_avi(avi, b"strf", 14, "<H", 0, nth=1)
    made["block_0.avi"] = in_avi(avi, b"strf", 12, "<H", 0, nth=1)
    made["scale_0.avi"] = in_avi(avi, b"strh", 20, "<II", 0, 0)
    made["scale_huge.avi"] = in_avi(avi, b"strh", 20, "<II", 0xFFFF_FFFF, 1)
    return made


def clocks(mp4: bytes) -> dict[str, bytes]:
    """Absurd time bases, edits, lengths of frames: zero, years, negative."""
    return {
        **{
            f"timescale_{scale}_{track}.mp4": changed(mp4, track, mdhd=put(12, ">I", scale))
            for scale in (0, 1, 0xFFFF_FFFF)
            for track in (0, 1)
        },
        "steps_zero.mp4": changed(mp4, 0, stts=numbers(0, 1, 8, 0)),
        "steps_years.mp4": changed(mp4, 0, mdhd=put(12, ">I", 1), stts=numbers(0, 1, 8, 0x7FFF_FFFF)),
        "steps_years_sound.mp4": changed(mp4, 1, mdhd=put(12, ">I", 1), stts=numbers(0, 1, 14, 0x0FFF_FFFF)),
        "starts_late.mp4": changed(mp4, 0, elst=numbers(0, 2, 0x7FFF_FFFF, 0xFFFF_FFFF, 1 << 16, 800, 0, 1 << 16)),
        "sound_starts_late.mp4": changed(
            mp4, 1, elst=numbers(0, 2, 0x7FFF_FFFF, 0xFFFF_FFFF, 1 << 16, 800, 0, 1 << 16)
        ),
        "starts_negative.mp4": changed(mp4, 0, elst=numbers(0, 1, 800, 0x8000_0000, 1 << 16)),
        "length_zero.mp4": changed(
            mp4, None, mvhd=put(16, ">I", 0), mdhd=put(16, ">I", 0), tkhd=put(20, ">I", 0), elst=None
        ),
    }


def turned(mp4: bytes) -> dict[str, bytes]:
    """Matrices that turn a picture into nothing, or into far too much."""
    matrices = {
        "zeros": (0,) * 9,
        "huge": (0x7FFF_FFFF,) * 9,
        "negative": (-0x8000_0000,) * 9,
        "odd": (46_341, 46_341, 0, -46_341, 46_341, 0, 0, 0, 1 << 30),
        "line": (1 << 16, 1 << 16, 0, 1 << 16, 1 << 16, 0, 0, 0, 1 << 30),
    }
    return {f"turned_{name}.mp4": changed(mp4, 0, tkhd=put(40, ">9i", *m)) for name, m in matrices.items()}


def remuxed(folder: Path, clips: Mapping[str, bytes]) -> dict[str, bytes]:
    """Times that jump by years, a size that changes in mid-stream, one stream of hours and the other of a second."""
    source = folder / "source.mkv"
    source.write_bytes(clips["ffv1.mkv"])
    jump = f"setts=ts=TS+gt(N\\,4)*{YEAR_S}/TB"
    glitch = f"setts=ts=TS+eq(N\\,4)*{YEAR_S}/TB"
    made = {}
    for name, words in {
        "years_picture.nut": ["-bsf:v", jump],
        "years_sound.nut": ["-bsf:a", jump],
        "years_both.nut": ["-bsf:v", jump, "-bsf:a", jump],
        "years_once.mkv": ["-bsf:v", glitch],
        "years_back.nut": ["-bsf:v", f"setts=ts=TS-{YEAR_S}/TB"],
    }.items():
        ffmpeg("-i", source, "-c", "copy", *words, folder / name)
        made[name] = (folder / name).read_bytes()
    hours(folder)
    both = [clips["mpeg2_mp2.ts"], other_size(folder)]
    long = {name: (folder / name).read_bytes() for name in ("hours_sound.avi", "hours_picture.mkv", "one_px.mkv")}
    return {**made, **long, "sizes_change.ts": b"".join(both * 5)}


def hours(folder: Path) -> None:
    """Ten hours of sound for a second of picture, the other way round, and a picture of one px."""
    second, px = "testsrc=s=32x32:r=5:d=1", "color=s=16x16:d=0.4:r=5,format=bgr0,crop=1:1"
    picture = ["-f", "lavfi", "-i", second, "-f", "lavfi", "-i", "anullsrc=r=100:cl=mono:d=36000"]
    ffmpeg(*picture, "-c:v", "mpeg4", "-ar", 100, "-c:a", "pcm_u8", folder / "hours_sound.avi")
    seldom = ["-f", "lavfi", "-i", "color=s=32x32:r=1/60:d=36000", "-f", "lavfi", "-i", "sine=d=1"]
    ffmpeg(*seldom, "-c:v", "mjpeg", "-c:a", "pcm_s16le", folder / "hours_picture.mkv")
    ffmpeg("-f", "lavfi", "-i", px, "-pix_fmt", "bgr0", "-c:v", "ffv1", folder / "one_px.mkv")


def other_size(folder: Path) -> bytes:
    """A clip as `mpeg2_mp2.ts`, of another size."""
    path = folder / "other.ts"
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=176x144:r=25:d=0.4", "-c:v", "mpeg2video", path)
    return path.read_bytes()


def many_large_streams(folder: Path) -> bytes:
    """120 streams of 4K pictures, all of them the same bytes: 12 MB a picture, and each stream has a decoder."""
    path = folder / "4k.mp4"
    picture = ["-f", "lavfi", "-i", "testsrc=s=3840x2160:r=10:d=0.5", "-pix_fmt", "yuv420p"]
    ffmpeg(*picture, "-c:v", "libx264", "-preset", "ultrafast", path)
    boxes = parse(path.read_bytes())
    next(box for box in boxes if box[0] == b"moov")[1].extend([tracks(boxes)[0]] * 119)
    return build(boxes)
