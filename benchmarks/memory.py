"""Peak memory of `avfuse extract` on a short and a long clip of the same size: it must not grow.

    python benchmarks/memory.py CLIP [--short 2] [--long 60] [--fps 1] [--precision bf16] [--more WORDS …]

CLIP is any clip with a face and sound; it is looped to the two lengths (minutes) at so few frames/s and 180×144 px, so
that all default features of the long one take minutes and not hours. WORDS are further ones for `extract`, such as
`--features wavlm_base`. Target: long ≤ 1.1 × short.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

from measure import avfuse, machine, run


def looped(clip: Path, seconds: int, fps: int, folder: Path) -> Path:
    """The clip again and again until it is `seconds` long, alone in a folder."""
    folder.mkdir(parents=True)
    size = ["-vf", f"scale=180:144,fps={fps}", "-c:v", "libx264", "-preset", "veryfast", "-c:a", "aac"]
    command = ["ffmpeg", "-v", "error", "-stream_loop", "-1", "-i", str(clip), "-t", str(seconds), *size]
    subprocess.run([*command, str(folder / "clip.mp4")], check=True)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("clip", type=Path)
    for name, default in (("--short", 2), ("--long", 60), ("--fps", 1)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[])
    asked = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        peaks = []
        for length in (asked.short, asked.long):
            videos = looped(asked.clip, 60 * length, asked.fps, Path(scratch, f"{length}min"))
            words = ("extract", "--videos", str(videos), "--store", f"{videos}.zarr", "--untrained", "0")
            done = run(avfuse(*words, "--precision", asked.precision, *asked.more), Path(scratch, "log"))
            peaks.append(done.peak_mib)
            print(f"{length:3d} min: peak {done.peak_mib:7.1f} MiB, {done.seconds:7.1f} s", flush=True)
    print(f"ratio: {peaks[1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main()
