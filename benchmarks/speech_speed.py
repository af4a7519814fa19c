"""`avfuse extract --features wavlm_base` against its network alone, on the same windows; real size, random weights.

    python benchmarks/speech_speed.py CLIP [--feature wavlm_base] [--seconds 60] [--rounds 3] [--device cpu]

CLIP is looped to so many seconds at 5 frames/s. Bare: the windows of that sound through the network of the same
process, as many at once as cores with a thread of torch's each, or on a GPU four of one length at once; and beside it
one after the other with torch's threads on all cores. Both without decoding, rows and store. Target: 0.9 × the first.
The second ratio is of CPU time (without ffmpeg's), for machines that are not idle.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from measure import machine

from avfuse.batch.resources import cores
from avfuse.encoders.engine import choose_device
from avfuse.encoders.loading import LoadedEncoder
from avfuse.encoders.weights.resolve import WeightSource
from avfuse.features_store.store import FeatureStore
from avfuse.pipeline.audio.states import StateGrid
from avfuse.pipeline.config import ExtractConfig, RunConfig
from avfuse.pipeline.extraction.jobs import Job
from avfuse.pipeline.extraction.session import open_session
from avfuse.pipeline.extraction.video import extract_video
from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import AudioReader


def looped(clip: Path, seconds: int, folder: Path) -> Path:
    """The clip again and again, until it is so long."""
    made = folder / "clip.mp4"
    command = ["ffmpeg", "-v", "error", "-stream_loop", "-1", "-i", str(clip), "-t", str(seconds)]
    subprocess.run([*command, "-vf", "scale=160:128,fps=5", "-c:a", "aac", str(made)], check=True)
    return made


def windows_of(video: Path, encoder: LoadedEncoder) -> list[np.ndarray]:
    """The windows of a video's sound, levelled by themselves, which costs the network nothing."""
    grid = StateGrid(encoder.sample_rate, encoder.window_s, encoder.context_s, encoder.hop_s, encoder.first_s)
    with AudioReader(probe(video), rate_hz=encoder.sample_rate) as audio:
        samples = np.concatenate(list(audio))
    return [samples[each.start : each.stop] / samples.std() for each in grid.windows(len(samples))]


def bare(encoder: LoadedEncoder, windows: list[np.ndarray], on_gpu: bool, threads: int) -> tuple[float, float]:
    """Seconds, and CPU seconds, for all windows: `threads` of them at once, each with its share of the cores."""
    groups = [window[None] for window in windows]
    if on_gpu:
        alike = (list(each) for _, each in groupby(windows, len))
        groups = [np.stack(each[at : at + 4]) for each in alike for at in range(0, len(each), 4)]
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, cores() // threads))
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)) as pool:
        began_s, cpu_s = time.perf_counter(), time.process_time()
        list(pool.map(encoder.states, groups))
        seconds = time.perf_counter() - began_s, time.process_time() - cpu_s
    torch.set_num_threads(before)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("clip", type=Path)
    for name, default in (("--feature", "wavlm_base"), ("--device", "cpu"), ("--precision", "fp32")):
        parser.add_argument(name, default=default)
    for name, number in (("--seconds", 60), ("--rounds", 3)):
        parser.add_argument(name, type=int, default=number)
    asked = parser.parse_args()
    on_gpu = choose_device(asked.device).type == "cuda"
    config = ExtractConfig(features=(asked.feature,), precision=asked.precision)
    source = WeightSource(asked.feature, "untrained", None, None, "none: random numbers", untrained_seed=0)
    print(machine(), f"{asked.feature}, {asked.seconds} s, {asked.device}")
    with tempfile.TemporaryDirectory() as scratch:
        video = looped(asked.clip, asked.seconds, Path(scratch))
        store = FeatureStore(Path(scratch, "s.zarr"), mode="a")
        job = Job(video, video.name, "clip", "largest", video.stat().st_size)
        ratios = []
        with open_session(config, RunConfig(device=asked.device), {asked.feature: source}) as session:
            encoder = session.networks.encoders[asked.feature]
            windows = windows_of(video, encoder)
            encoder.states(windows[-1][None])
            for _ in range(asked.rounds):
                alone_s, alone_cpu_s = bare(encoder, windows, on_gpu, 2 if on_gpu else cores())
                one_by_one_s, _ = bare(encoder, windows, on_gpu, 1)
                began_s, cpu_s = time.perf_counter(), time.process_time()
                extract_video(job, store, session, lambda *words: None)
                whole_s, whole_cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
                ratios.append(alone_s / whole_s)
                took = f"bare {alone_s:.2f} s, one by one {one_by_one_s:.2f} s, extract {whole_s:.2f} s"
                print(f"{took}: {ratios[-1]:.3f}, of CPU time {alone_cpu_s / whole_cpu_s:.3f}", flush=True)
        print(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) × bare")


if __name__ == "__main__":
    main()
