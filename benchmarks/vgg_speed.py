"""VGGish on patches that overlap against the bare network on the same patches in batches, taking turns.

    python benchmarks/vgg_speed.py [--rates 25,29.97,30] [--rounds 5] [--seconds 8] [--precision fp32] [--device cpu]

Bare: the same network on 32 patches at a time (--batch-size), in memory, torch with all cores. Ours on a CPU: as
`extract` submits them, on the engine's threads. Ours on a GPU, where `extract` runs the bare network: four batches of
patches at a time, to see whether it pays. Prints patches/s of the wall clock and of the processors' time, the ratios
of each round, and how far apart the rows are, in parts of the largest number. Target: at least 1.6 × bare on 2 cores.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from measure import machine

from avfuse.encoders.embed import Embedder
from avfuse.encoders.engine import CpuEngine, choose_device, whole_float32
from avfuse.encoders.networks.vgg import OverlappingVggish
from avfuse.encoders.views import Patches
from avfuse.encoders.weights.read import untrained_network
from avfuse.features_store.clock import patch_start_frames

AT_ONCE = 64  # rows that `extract` hands on together


def patches_of(rate: float, seconds: float) -> Patches:
    """Patches of noise as loud as log-mel, one per frame."""
    starts = patch_start_frames(np.arange(0, seconds, 1 / rate), "start")
    frames = np.random.default_rng(0).uniform(-4.6, 2, (int(starts[-1]) + 96, 64))
    return Patches(frames.astype(np.float32), starts)


def timed(make: Callable[[], np.ndarray]) -> tuple[np.ndarray, float, float]:
    """Rows, seconds of the wall clock, seconds of the processors."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    rows = make()
    return rows, time.perf_counter() - wall_s, time.process_time() - cpu_s


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rates", default="25,29.97,30")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=32)
    asked = parser.parse_args()
    device, cores = choose_device(asked.device), torch.get_num_threads()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{cores} threads"
    print(machine(), name, asked.precision)
    embedder = Embedder(untrained_network("vggish", 0), device, asked.precision, asked.batch_size)
    engine = CpuEngine({"vggish": embedder}, cores)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[asked.precision]
    overlapping = OverlappingVggish(untrained_network("vggish", 0).module.to(device, dtype))

    def on_gpu(part: Patches) -> np.ndarray:
        with torch.inference_mode():
            rows = overlapping(torch.from_numpy(part.frames).to(device, dtype), part.firsts)
            return np.asarray(rows.float().cpu().numpy())

    def ours(patches: Patches) -> np.ndarray:
        at_once = 4 * asked.batch_size if device.type == "cuda" else AT_ONCE
        given = [patches[start : start + at_once] for start in range(0, len(patches), at_once)]
        if device.type == "cuda":
            return np.concatenate([on_gpu(part) for part in given])
        futures = [future for part in given for future in engine.submit("vggish", part)]
        return np.concatenate([future.result() for future in futures])

    for rate in map(float, asked.rates.split(",")):
        patches = patches_of(rate, asked.seconds)
        alone = np.asarray(patches)
        embedder.rows(alone[: asked.batch_size])
        ours(patches[:AT_ONCE])
        wall, cpu, speeds = [], [], []
        for _ in range(asked.rounds):
            with whole_float32(asked.precision):
                bare_rows, bare_s, bare_cpu_s = timed(lambda: embedder.rows(alone))  # noqa: B023 - called at once
                rows, ours_s, ours_cpu_s = timed(lambda: ours(patches))  # noqa: B023
            wall.append(bare_s / ours_s)
            cpu.append(bare_cpu_s / ours_cpu_s)
            speeds.append((len(patches) / bare_s, len(patches) / ours_s))
        bare_speed, our_speed = (statistics.median(each) for each in zip(*speeds, strict=True))
        apart = np.abs(rows - bare_rows).max() / np.abs(bare_rows).max()
        print(
            f"{rate:g} frames/s: bare {bare_speed:.1f}, ours {our_speed:.1f} patches/s, "
            f"{statistics.median(wall):.2f} ({min(wall):.2f}–{max(wall):.2f}) ×; by the processors' time "
            f"{statistics.median(cpu):.2f} ({min(cpu):.2f}–{max(cpu):.2f}) ×; rows {apart:.1e} apart",
            flush=True,
        )
    engine.close()


if __name__ == "__main__":
    main()
