"""Training speed: our loop against the field's, what the data path costs, and where a step's time goes.

    python benchmarks/train_speed.py [--trials 16] [--rows 1500] [--repeat 5] [--device cpu] [--compile]

The same network, loss and optimiser in both loops, which take turns in one process: epochs of `train_epoch` (features
in memory, windows by index) and of naive_train.py (.npy files, DataLoader, list stitcher). Then the same epoch over
batches that are in memory already: what is more than that is the data path. Then a profile of some steps.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from measure import machine
from naive_train import Windows as NaiveWindows
from naive_train import epoch as naive_epoch

from avfuse.features_store.store import FeatureStore
from avfuse.fusion.config import RunConfig
from avfuse.fusion.data.batches import Batches
from avfuse.fusion.data.dataset import Dataset, load
from avfuse.fusion.data.matching import TrialSource
from avfuse.fusion.data.runtime import room_of
from avfuse.fusion.settings import preset
from avfuse.fusion.training.learner import Learner, init_learner, train_epoch

WIDTHS = {"iresnet50": 512, "vggish": 128, "logmel_vgg": 128}


def make(folder: Path, trials: int, rows: int) -> dict[str, TrialSource]:
    """The same random features and labels twice: a store, and .npy files."""
    store, rng = FeatureStore(folder / "features.zarr", mode="a"), np.random.default_rng(0)
    sources = {}
    for number in range(trials):
        name = f"t{number:03d}"
        arrays: dict[str, np.ndarray] = {"time": np.arange(rows) / 30}
        for feature, width in WIDTHS.items():
            arrays[feature] = rng.standard_normal((rows, width), dtype=np.float32)
            arrays[f"{feature}_valid"] = np.ones(rows, np.bool_)
            np.save(folder / f"{name}_{feature}.npy", arrays[feature])
        labels = rng.uniform(-1, 1, (rows, 2)).astype(np.float32)
        np.save(folder / f"{name}_labels.npy", labels)
        store.write(name, arrays, {})
        sources[name] = TrialSource(name, name, labels, np.ones(rows, np.bool_))
    return sources


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Wall time of a call, the device's work included."""
    began_s = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began_s


def median_and_range(rates: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(rates):8.2f} ({min(rates):.2f}–{max(rates):.2f})"


def compare(learner: Learner, data: Dataset, folder: Path, repeat: int) -> None:
    """Our epochs, the field's, and those over batches in memory, in turns."""
    config, trials = learner.config, list(data.sources)
    stats = data.statistics(trials, config)
    batches, windows = Batches(data, stats, config), data.windows(trials, config)
    naive = NaiveWindows(folder, {name: source.rows for name, source in data.sources.items()}, stats)
    assert len(naive) == len(windows)
    ready = list(batches.all(windows))

    def stepped() -> None:
        learner.model.train()
        for batch in ready:
            learner.step(batch)

    ways: dict[str, Callable[[], object]] = {
        "avfuse": lambda: train_epoch(learner, batches, windows, 1),
        "naive loop": lambda: naive_epoch(learner, naive, config.batch_size),
        "batches in memory": stepped,
    }
    for way in ways.values():
        way()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeat):
        for name, way in ways.items():
            times[name].append(seconds(way, learner.device))
    print(
        f"{len(windows)} windows of {config.window_frames} frames, batches of {config.batch_size}, {repeat} epochs each"
    )
    for name, taken in times.items():
        print(f"{name:20} windows/s {median_and_range([len(windows) / each for each in taken])}")
    pairs = list(zip(*times.values(), strict=True))
    print(f"avfuse over the naive loop, speed  {median_and_range([naive / ours for ours, naive, _ in pairs])}")
    print(
        f"the data path, added to a step     {median_and_range([100 * (ours / bare - 1) for ours, _, bare in pairs])} %"
    )


def profile(learner: Learner, data: Dataset) -> None:
    """The operations that take most of a step."""
    config = learner.config
    batches = Batches(data, data.statistics(list(data.sources), config), config)
    loaded = list(batches.all(data.windows(list(data.sources)[:4], config)))
    with torch.profiler.profile() as profiler:
        for batch in loaded:
            learner.step(batch)
    events = sorted(profiler.key_averages(), key=lambda event: event.self_cpu_time_total, reverse=True)
    whole = sum(event.self_cpu_time_total for event in events)
    print(f"a step: {whole / len(loaded) / 1000:.0f} ms of work on the CPU's threads")
    for event in events[:10]:
        print(f"  {event.key:40} {event.self_cpu_time_total / whole:6.1%}")


def main() -> None:
    """Make the data, compare, profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--compile", action="store_true")
    words = parser.parse_args()
    run = RunConfig(words.device, words.precision, words.compile)
    config = replace(preset("crossattn"), warmup_epochs=0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = make(folder, words.trials, words.rows)
        data = load(FeatureStore(folder / "features.zarr"), sources, list(WIDTHS), room_of(run))
        learner = init_learner(config, run, data.shapes, data.labels.device)
        print(machine())
        compare(learner, data, folder, words.repeat)
        profile(learner, data)


if __name__ == "__main__":
    main()
