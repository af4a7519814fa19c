"""Peak memory of `avfuse extract` on a 1-minute and a 20-minute clip of the same size: it must not grow.

    python benchmarks/memory.py CLIP [LONG_MINUTES]

CLIP is any clip with a face and sound; it is looped to the two lengths at 10 frames/s and 180×144 px, so that all
default features of the long one take minutes and not hours. Target: long ≤ 1.15 × short.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from measure import avfuse, machine, run


def looped(clip: Path, seconds: int, folder: Path) -> Path:
    """The clip again and again until it is `seconds` long, alone in a folder."""
    folder.mkdir(parents=True)
    size = ["-vf", "scale=180:144,fps=10", "-c:v", "libx264", "-preset", "veryfast", "-c:a", "aac"]
    command = ["ffmpeg", "-v", "error", "-stream_loop", "-1", "-i", str(clip), "-t", str(seconds), *size]
    subprocess.run([*command, str(folder / "clip.mp4")], check=True)
    return folder


def main() -> None:
    clip, minutes = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        peaks = []
        for length in (1, minutes):
            videos = looped(clip, 60 * length, Path(scratch, f"{length}min"))
            words = ("extract", "--videos", str(videos), "--store", f"{videos}.zarr", "--untrained", "0")
            done = run(avfuse(*words), Path(scratch, "log"))
            peaks.append(done.peak_mib)
            print(f"{length:3d} min: peak {done.peak_mib:7.1f} MiB, {done.seconds:7.1f} s", flush=True)
    print(f"ratio: {peaks[1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main()
