"""Two workers against one, and what dask costs, on copies of one clip.

    python benchmarks/scaling.py CLIP [--few 2 --many 8] [--rounds 3] [--aligned DIR]

Every way is run with few and with many copies; the difference is the time of the copies alone, without starting
processes and loading networks. The ways take turns; medians and ranges of the ratios of each round. One core:
`taskset`; its networks run on one thread, as each of two workers' do.
DIR holds the crops of the trial CLIP's name (see `aligned_speed.py`): copies get links to them.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from measure import avfuse, machine


def copies(clip: Path, count: int, folder: Path, crops: Path | None) -> list[str]:
    """Links to the clip, and what `extract` is told of them."""
    videos, aligned = folder / f"{count}", folder / f"{count}-crops"
    videos.mkdir()
    aligned.mkdir()
    for number in range(count):
        (videos / f"c{number}{clip.suffix}").symlink_to(clip.resolve())
        if crops:
            (aligned / f"c{number}").symlink_to((crops / clip.stem).resolve())
    return ["--videos", str(videos), *(["--aligned", str(aligned)] if crops else [])]


def seconds(words: list[str], prefix: list[str]) -> float:
    """Wall time of a run that does everything anew, as it tells itself."""
    with tempfile.TemporaryDirectory() as store:
        base = ["extract", *words, "--store", f"{store}/s.zarr", "--untrained", "0", "--json"]
        done = subprocess.run([*prefix, *avfuse(*base)], capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)["seconds"])


@contextmanager
def cluster() -> Iterator[str]:
    """A scheduler and one worker that uses all cores; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, quiet = f"tcp://127.0.0.1:{port}", {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [str(Path(sys.executable).parent / "dask")]
    scheduler = subprocess.Popen(
        [*dask, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"], **quiet
    )
    time.sleep(3)
    limits = ["--nthreads", "1", "--memory-limit", "0", "--no-dashboard"]
    worker = subprocess.Popen([*dask, "worker", address, *limits], **quiet)
    try:
        yield address
    finally:
        worker.terminate()
        scheduler.terminate()
        worker.wait()
        scheduler.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("clip", type=Path)
    parser.add_argument("--few", type=int, default=2)
    parser.add_argument("--many", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--aligned", type=Path)
    asked = parser.parse_args()
    core = str(min(os.sched_getaffinity(0)))
    print(machine())
    with tempfile.TemporaryDirectory() as scratch, cluster() as address:
        sets = [copies(asked.clip, count, Path(scratch), asked.aligned) for count in (asked.few, asked.many)]
        ways = {
            "one core": ([], ["taskset", "-c", core]),
            "--workers 2": (["--workers", "2"], []),
            "all cores, no dask": ([], []),
            "all cores, one dask worker": (["--scheduler", address], []),
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(asked.rounds):
            for name, (words, prefix) in ways.items():
                few, many = (seconds([*each, *words], prefix) for each in sets)
                took[name].append((many - few) / (asked.many - asked.few))
                print(f"{name:28} {took[name][-1]:.2f} s a video", flush=True)
    tell("two workers", took["one core"], took["--workers 2"], "× one")
    tell("dask", took["all cores, one dask worker"], took["all cores, no dask"], "× the serial run")


def tell(what: str, upper: list[float], lower: list[float], of: str) -> None:
    """The ratio of two ways."""
    ratios = [one / other for one, other in zip(upper, lower, strict=True)]
    print(f"{what}: {median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f}) {of}")


if __name__ == "__main__":
    main()
