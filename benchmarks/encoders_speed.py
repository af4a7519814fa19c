"""Extraction of one encoder of faces against its bare network on the same crops, in one process.

    python benchmarks/encoders_speed.py CLIP [--feature clip_large] [--frames 20] [--rounds 3] [--device cpu]
                                             [--precision fp32] [--weights FOLDER]

The clip's first frames; random weights of the real size unless a folder is given. Extraction decodes, finds the faces
(or reads their landmarks back from a store that has them), cuts the encoder's views, embeds and writes; the network is
loaded before. Alone, the network has all cores and the views in batches of 16. Aim: at least 0.9 of its speed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from measure import machine

from avfuse.batch.resources import cores
from avfuse.encoders.weights.resolve import resolve
from avfuse.features_store.store import FeatureStore
from avfuse.pipeline.config import ExtractConfig, RunConfig
from avfuse.pipeline.extraction.jobs import Job
from avfuse.pipeline.extraction.session import open_session
from avfuse.pipeline.extraction.video import extract_video
from avfuse.pipeline.faces.align import align
from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import FrameReader


def beginning(clip: Path, frames: int, folder: Path) -> Path:
    """The clip's first frames, without sound."""
    target = folder / f"{clip.stem}.mp4"
    words = ["-frames:v", str(frames), "-an", "-c:v", "libx264", "-crf", "18"]
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(clip), *words, str(target)], check=True)
    return target


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that something takes, and those of this process's processors: on a busy machine the fairer ones."""
    began_s, busy_s = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began_s, time.process_time() - busy_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("--feature", default="clip_large")
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--weights", type=Path)
    words = parser.parse_args()
    print(machine())
    given = {} if words.weights is None else {words.feature: words.weights}
    weights = resolve((words.feature,), given, None if given else 0)
    config = ExtractConfig(features=(words.feature,), precision=words.precision)
    with (
        tempfile.TemporaryDirectory() as name,
        open_session(config, RunConfig(device=words.device), weights) as session,
    ):
        folder = Path(name)
        clip = beginning(words.clip, words.frames, folder)
        job = Job(clip, clip.name, clip.stem, "largest", clip.stat().st_size, features=(words.feature,))
        store = FeatureStore(folder / "s.zarr", mode="a")
        extract_video(job, store, session, lambda *_: None)  # warm
        network = session.networks.encoders[words.feature]
        with FrameReader(probe(clip)) as reader:
            pixels = np.concatenate([batch.pixels for batch in reader])
        marks = store[clip.stem].read("face_landmarks")
        cut = [align(*each, network.input_px) for each in zip(pixels, marks, strict=True)]
        views = np.stack([view for view in cut if view is not None])
        found: dict[str, list[float]] = {}
        for _ in range(words.rounds):
            taken = {}
            for what, adds in (("whole", False), ("added", True)):
                adding = replace(job, adds=adds, keeps_track=adds)
                taken[what] = timed(partial(extract_video, adding, store, session, lambda *_: None))
            torch.set_num_threads(cores())
            bare = timed(lambda: [network.made.rows(views[first : first + 16]) for first in range(0, len(views), 16)])
            torch.set_num_threads(1)
            for what, seconds in taken.items():
                for kind, ours, theirs in zip(("by the clock", "by processors' time"), seconds, bare, strict=True):
                    found.setdefault(f"{what}, {kind}", []).append(theirs / ours)
            print(f"{len(views)} faces: bare {bare[0]:.2f} s, extract {taken['whole'][0]:.2f} s")
    for what, ratios in found.items():
        print(f"{words.feature}, {what}: {statistics.median(ratios):.2f} × bare ({min(ratios):.2f}–{max(ratios):.2f})")


if __name__ == "__main__":
    main()
