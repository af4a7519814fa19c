"""Two workers against one, and what dask costs, on copies of one clip.

    python benchmarks/scaling.py CLIP [--few 2 --many 8] [--rounds 3] [--aligned DIR] [--precision bf16]
    python benchmarks/scaling.py CLIP --few 10 --many 110 --features mfcc     # what dask costs a video, in ms

Every way is run with few and with many copies; the difference is the time of the copies alone, without starting
processes and loading networks. The ways take turns; medians and ranges of the ratios of each round. One core:
`taskset`; its networks run on one thread, as each of two workers' do. A run on each core, with nothing in common, is
what the machine itself allows.
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
    """Links to the clip, and the options of `extract` for them."""
    videos, aligned = folder / f"{count}", folder / f"{count}-crops"
    videos.mkdir()
    aligned.mkdir()
    for number in range(count):
        (videos / f"c{number}{clip.suffix}").symlink_to(clip.resolve())
        if crops:
            (aligned / f"c{number}").symlink_to((crops / clip.stem).resolve())
    return ["--videos", str(videos), *(["--aligned", str(aligned)] if crops else [])]


def seconds(words: list[str], prefixes: list[list[str]]) -> float:
    """Wall time of runs at once that do everything anew, as they report it themselves: the longest."""
    with tempfile.TemporaryDirectory() as scratch:
        runs = [
            subprocess.Popen(
                [*prefix, *avfuse("extract", *words, "--store", f"{scratch}/{number}.zarr")],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for number, prefix in enumerate(prefixes)
        ]
        summaries = [run.communicate()[0] for run in runs]
    return max(float(json.loads(each)["seconds"]) for each in summaries)


@contextmanager
def cluster() -> Iterator[str]:
    """A scheduler and one worker that uses all cores; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, quiet = f"tcp://127.0.0.1:{port}", subprocess.DEVNULL
    dask = [str(Path(sys.executable).parent / "dask")]
    scheduler = subprocess.Popen(
        [*dask, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"], stdout=quiet, stderr=quiet
    )
    time.sleep(3)
    limits = ["--nthreads", "1", "--memory-limit", "0", "--no-dashboard"]
    worker = subprocess.Popen([*dask, "worker", address, *limits], stdout=quiet, stderr=quiet)
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
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--features", default="iresnet50,vggish,logmel_vgg")
    asked = parser.parse_args()
    one_core, other_core = (["taskset", "-c", str(core)] for core in sorted(os.sched_getaffinity(0))[:2])
    print(machine())
    with tempfile.TemporaryDirectory() as scratch, cluster() as address:
        sets = [copies(asked.clip, count, Path(scratch), asked.aligned) for count in (asked.few, asked.many)]
        how = ["--precision", asked.precision, "--features", asked.features, "--untrained", "0", "--json"]
        ways: dict[str, tuple[list[str], list[list[str]]]] = {
            "one core": (how, [one_core]),
            "a run on each core": (how, [one_core, other_core]),
            "--workers 2": ([*how, "--workers", "2"], [[]]),
            "all cores, no dask": (how, [[]]),
            "all cores, one dask worker": ([*how, "--scheduler", address], [[]]),
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(asked.rounds):
            for name, (words, prefixes) in ways.items():
                few, many = (seconds([*each, *words], prefixes) for each in sets)
                took[name].append((many - few) / (asked.many - asked.few) / len(prefixes))
                print(f"{name:28} {took[name][-1]:.3f} s a video", flush=True)
    print_ratio("a run on each core", took["one core"], took["a run on each core"], "× one")
    print_ratio("two workers", took["one core"], took["--workers 2"], "× one")
    print_ratio("dask", took["all cores, one dask worker"], took["all cores, no dask"], "× the serial run")
    costs = median(took["all cores, one dask worker"]) - median(took["all cores, no dask"])
    print(f"dask: {costs * 1000:+.1f} ms a video (medians)")


def print_ratio(what: str, upper: list[float], lower: list[float], of: str) -> None:
    """The ratio of two ways."""
    ratios = [one / other for one, other in zip(upper, lower, strict=True)]
    print(f"{what}: {median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f}) {of}")


if __name__ == "__main__":
    main()
