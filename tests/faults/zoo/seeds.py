"""Small whole clips of every container and of many codecs: what mutations are made of."""

import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

PICTURE = ("-f", "lavfi", "-i", "testsrc=s=64x48:r=10:d=0.8")
SOUND = ("-f", "lavfi", "-i", "sine=440:d=0.8:r=16000")
H264 = "-c:v libx264 -preset ultrafast -g 4 -pix_fmt yuv420p"
# Name: words for the encoders.
CLIPS = {
    "h264_aac.mp4": f"{H264} -c:a aac",
    "mpeg4_pcm.avi": "-c:v mpeg4 -g 4 -c:a pcm_s16le",
    "mpeg2_mp2.ts": "-c:v mpeg2video -r 25 -c:a mp2",
    "bframes.mkv": "-c:v libx264 -preset veryfast -bf 2 -pix_fmt yuv420p -c:a flac",
    "hevc.mp4": "-c:v libx265 -preset ultrafast -x265-params log-level=none -pix_fmt yuv420p -c:a aac",
    "vp8.webm": "-c:v libvpx -deadline realtime -c:a libvorbis",
    "vp9.webm": "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -c:a libopus",
    "ffv1.mkv": "-c:v ffv1 -pix_fmt bgr0 -c:a pcm_f32le",
    "mjpeg.mov": "-c:v mjpeg -pix_fmt yuvj420p -c:a pcm_s16be",
    "png.mov": "-c:v png -c:a alac",
    "fragments.mp4": f"{H264} -c:a aac -movflags frag_keyframe+empty_moov",
    "mpeg1.mpg": "-c:v mpeg1video -r 25 -c:a mp2",
    "flv.flv": "-c:v flv -ar 22050 -c:a libmp3lame",
    "wmv.wmv": "-c:v wmv2 -c:a wmav2",
    "theora.ogv": "-c:v libtheora -c:a libvorbis",
    "rv10.rm": "-c:v rv10 -c:a ac3",
    "raw.y4m": "-an -pix_fmt yuv420p",
    "mpeg4.nut": "-c:v mpeg4 -c:a pcm_s16le",
    "mpeg2.mxf": "-c:v mpeg2video -r 25 -ar 48000 -c:a pcm_s16le",
    "h263.3gp": "-s 128x96 -c:v h263 -c:a aac",
    "dv.dv": "-s 720x576 -r 25 -pix_fmt yuv420p -frames:v 3 -ar 48000 -ac 2",
    "h264.vob": "-c:v mpeg2video -r 25 -c:a ac3",
}
# What bombs are made of.
BASES = ("h264_aac.mp4", "mpeg4_pcm.avi", "mpeg2_mp2.ts", "vp8.webm", "ffv1.mkv", "mjpeg.mov", "png.mov")


def ffmpeg(*words: object) -> None:
    """Run ffmpeg; its own words are in the error."""
    command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-nostdin", "-y", *map(str, words)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{words}: {done.stderr.decode(errors='replace')}")


def encode(path: Path, words: str) -> Path:
    """A clip of 0.8 s."""
    ffmpeg(*PICTURE, *([] if "-an" in words.split() else SOUND), *words.split(), path)
    return path


def generated(folder: Path, names: Iterable[str] = CLIPS) -> dict[str, bytes]:
    """Clips' bytes by name."""
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda name: encode(folder / name, CLIPS[name]), names))
    return {path.name: path.read_bytes() for path in paths}


def real(media: Path, folder: Path, most: int) -> dict[str, bytes]:
    """The first half second of real clips, packets as they are, and streams of two of them swapped."""
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(
        path for path in media.rglob("*") if path.suffix in (".mp4", ".mov", ".mkv", ".webm", ".mpg", ".avi")
    )
    cuts: list[Path] = []
    for path in [path for path in found if "truncated" not in path.name][:most]:
        cut = folder / f"real_{path.name}"
        ffmpeg("-i", path, "-t", "0.5", "-map", "0:v:0", "-map", "0:a?", "-c", "copy", cut)
        cuts.append(cut)
    for one, other in pairwise(tuple(cuts)):
        cuts.append(folder / f"swapped_{one.stem}.mkv")
        ffmpeg("-i", one, "-i", other, "-map", "0:v:0", "-map", "1:a?", "-c", "copy", "-t", "0.5", cuts[-1])
    return {path.name: path.read_bytes() for path in cuts if path.stat().st_size < 400_000}
