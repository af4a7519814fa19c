"""Loading a store into memory against loading the same bytes from .npy files with NumPy: time and peak memory.

    python benchmarks/load_store.py [--gb 3] [--repeat 5] [--folder DIR]

Makes trials of random features with the widths and types of a real store, and the same arrays as .npy files. Warm
(files in the page cache) and cold (the cache is asked to forget them), NumPy, the store alone and the whole of
the trainer's loading take turns, each in a process of its own that keeps all it has loaded. Memory is what the
peak grew by, over the bytes (Linux).
Targets: time ≤ 2 × NumPy's, memory ≤ 1.1 × the bytes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from measure import machine
from numpy.typing import NDArray

from avfuse.features_store.store import FeatureStore
from avfuse.fusion.data.dataset import Dataset, load
from avfuse.fusion.data.matching import TrialSource
from avfuse.fusion.data.runtime import Room

WIDTHS = {"iresnet50": 512, "vggish": 128, "logmel_vgg": 128}
ROWS = 5000
ROW_BYTES = 4 * sum(WIDTHS.values())


def make(folder: Path, trials: int) -> None:
    """`trials` trials of ROWS rows, twice: folder/features.zarr and folder/npy/<trial>_<feature>.npy."""
    store, rng = FeatureStore(folder / "features.zarr", mode="a"), np.random.default_rng(0)
    (folder / "npy").mkdir()
    for number in range(trials):
        arrays: dict[str, NDArray[np.generic]] = {"time": np.arange(ROWS) / 30}
        for name, width in WIDTHS.items():
            arrays[name] = rng.standard_normal((ROWS, width), dtype=np.float32)
            arrays[f"{name}_valid"] = np.ones(ROWS, np.bool_)
            np.save(folder / "npy" / f"t{number:04d}_{name}.npy", arrays[name])
        store.write(f"t{number:04d}", arrays, {})
    os.sync()


def load_npy(folder: Path) -> list[NDArray[np.float32]]:
    """All files, kept."""
    return [np.load(path) for path in sorted((folder / "npy").iterdir())]


def load_store(folder: Path) -> dict[str, NDArray[np.float32]]:
    """All trials, one after the other in one array per feature, as a trainer keeps them."""
    store = FeatureStore(folder / "features.zarr")
    trials = store.trials()
    kept = {name: np.empty((len(trials) * ROWS, width), np.float32) for name, width in WIDTHS.items()}

    for number, trial in enumerate(trials):
        for name, rows in kept.items():
            store[trial].read_into(name, rows[number * ROWS : (number + 1) * ROWS])
    return kept


def load_trainer(folder: Path) -> Dataset:
    """What `avfuse train` does: the same, every number looked at, masks, and the moments of every trial."""
    store = FeatureStore(folder / "features.zarr")
    labels, labelled = np.zeros((ROWS, 2), np.float32), np.ones(ROWS, np.bool_)
    sources = {name: TrialSource(name, name, labels, labelled) for name in store.trials()}
    return load(store, sources, list(WIDTHS), Room(torch.device("cpu"), 1 << 40, 1 << 40))


WAYS: dict[str, Callable[[Path], object]] = {"npy": load_npy, "store": load_store, "trainer": load_trainer}


def time_here(way: str, folder: Path, trials: int) -> None:
    """In a process of its own: print the seconds, and by how many MiB the memory grew at its peak."""
    # A virtual machine may get its memory from the host at the first touch, which can take longer than the loading.
    np.empty(trials * ROWS * ROW_BYTES, np.uint8).fill(1)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is measured from now on
    before_mib, began_s = status_mib("VmRSS"), time.perf_counter()
    kept = WAYS[way](folder)
    print(time.perf_counter() - began_s, status_mib("VmHWM") - before_mib)
    del kept


def status_mib(word: str) -> float:
    """Memory of this process as Linux reports it: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(word))


def timed(way: str, folder: Path, trials: int) -> tuple[float, float]:
    """Seconds and MiB of one load in a new process."""
    words = ["--way", way, "--folder", str(folder), "--trials", str(trials)]
    seconds, mib = subprocess.run(
        [sys.executable, __file__, *words], check=True, capture_output=True, text=True
    ).stdout.split()
    return float(seconds), float(mib)


def forget(folder: Path) -> None:
    """Tell the page cache to drop the files."""
    for path in files(folder):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def touch(folder: Path) -> None:
    """Read the files once, so that they are in the page cache."""
    for path in files(folder):
        path.read_bytes()


def files(folder: Path) -> Iterator[Path]:
    """All files below a folder."""
    return (path for path in folder.rglob("*") if path.is_file())


def compare(folder: Path, trials: int, repeat: int) -> None:
    """Print two lines for warm and two for cold files."""
    loaded_mib = trials * ROWS * ROW_BYTES / 2**20
    for state, prepare in (("warm", touch), ("cold", forget)):
        taken: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for _ in range(repeat):
            for way, times in taken.items():
                prepare(folder)
                times.append(timed(way, folder, trials))
        npy_s = [seconds for seconds, _ in taken.pop("npy")]
        for way, times in taken.items():
            speed = f"NumPy {statistics.median(npy_s):.2f} s, {way} {statistics.median(s for s, _ in times):.2f} s"
            ratios = [seconds / npy for (seconds, _), npy in zip(times, npy_s, strict=True)]
            ratio = f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
            growth = max(mib for _, mib in times) / loaded_mib
            print(f"{state}, {way}: {speed}, {ratio}, peak {growth:.3f} × the bytes", flush=True)


def main() -> None:
    """Parse, make the files, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=3.0, help="size of the features, GB")
    parser.add_argument("--repeat", type=int, default=5, help="loads of each kind")
    parser.add_argument("--folder", type=Path, help="where to put the files (default: a temporary folder)")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--trials", type=int, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.way:
        time_here(words.way, words.folder, words.trials)
        return
    print(machine())
    trials = max(1, round(words.gb * 1e9 / (ROWS * ROW_BYTES)))
    with tempfile.TemporaryDirectory(dir=words.folder) as scratch:
        folder = Path(scratch)
        make(folder, trials)
        sizes = [sum(path.stat().st_size for path in files(folder / name)) for name in ("npy", "features.zarr")]
        print(f"{trials} trials of {ROWS} rows: .npy {sizes[0] / 1e9:.2f} GB, store {sizes[1] / 1e9:.2f} GB")
        compare(folder, trials, words.repeat)


if __name__ == "__main__":
    main()
