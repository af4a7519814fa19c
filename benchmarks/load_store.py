"""Loading a store into memory against loading the same bytes from .npy files with NumPy: time and peak memory.

    python benchmarks/load_store.py [--gb 3] [--repeat 5] [--threads 1 2] [--folder DIR]

Makes trials of random features with the widths and types of a real store, and the same arrays as .npy files. Warm
(files in the page cache) and cold (the cache is told to forget them), NumPy and the store take turns, each in a
process of its own that keeps all it has loaded. Memory is what the store's peak grew by, over the bytes (Linux).
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from measure import machine
from numpy.typing import NDArray

from avfuse.features_store.store import FeatureStore

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


def load_npy(folder: Path, threads: int) -> list[NDArray[np.float32]]:
    """All files, kept."""
    return [np.load(path) for path in sorted((folder / "npy").iterdir())]


def load_store(folder: Path, threads: int) -> dict[str, NDArray[np.float32]]:
    """All trials, one after the other in one array a feature, as a trainer keeps them."""
    store = FeatureStore(folder / "features.zarr")
    trials = store.trials()
    kept = {name: np.empty((len(trials) * ROWS, width), np.float32) for name, width in WIDTHS.items()}

    def load(number: int) -> None:
        trial = store[trials[number]]
        for name, rows in kept.items():
            trial.read_into(name, rows[number * ROWS : (number + 1) * ROWS])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(load, range(len(trials))))
    return kept


WAYS: dict[str, Callable[[Path, int], object]] = {"npy": load_npy, "store": load_store}


def time_here(way: str, folder: Path, threads: int, trials: int) -> None:
    """In a process of its own: print the seconds, and by how many MiB the memory grew at its peak."""
    # A virtual machine may get its memory from the host at the first touch, which can take longer than the loading.
    np.empty(trials * ROWS * ROW_BYTES, np.uint8).fill(1)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before_mib, began_s = status_mib("VmRSS"), time.perf_counter()
    kept = WAYS[way](folder, threads)
    print(time.perf_counter() - began_s, status_mib("VmHWM") - before_mib)
    del kept


def status_mib(word: str) -> float:
    """Memory of this process as Linux tells it: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(word))


def timed(way: str, folder: Path, threads: int, trials: int) -> tuple[float, float]:
    """Seconds and MiB of one load in a new process."""
    words = ["--way", way, "--folder", str(folder), "--threads", str(threads), "--trials", str(trials)]
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


def compare(folder: Path, trials: int, repeat: int, threads: int) -> None:
    """Print a line for warm and one for cold files."""
    loaded_mib = trials * ROWS * ROW_BYTES / 2**20
    for state, prepare in (("warm", touch), ("cold", forget)):
        npy_s, store_s, ratios, growth = [], [], [], []
        for _ in range(repeat):
            prepare(folder)
            npy_s.append(timed("npy", folder, threads, trials)[0])
            prepare(folder)
            seconds, mib = timed("store", folder, threads, trials)
            store_s.append(seconds)
            ratios.append(seconds / npy_s[-1])
            growth.append(mib / loaded_mib)
        speed = f"NumPy {statistics.median(npy_s):.2f} s, store {statistics.median(store_s):.2f} s"
        ratio = f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        print(f"{state}, {threads} threads: {speed}, {ratio}, peak {max(growth):.3f} × the bytes", flush=True)


def main() -> None:
    """Parse, make the files, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=3.0, help="size of the features, GB")
    parser.add_argument("--repeat", type=int, default=5, help="loads of each kind")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="trials loaded at once")
    parser.add_argument("--folder", type=Path, help="where to put the files (default: a temporary folder)")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--trials", type=int, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.way:
        time_here(words.way, words.folder, words.threads[0], words.trials)
        return
    print(machine())
    trials = max(1, round(words.gb * 1e9 / (ROWS * ROW_BYTES)))
    with tempfile.TemporaryDirectory(dir=words.folder) as scratch:
        folder = Path(scratch)
        make(folder, trials)
        sizes = [sum(path.stat().st_size for path in files(folder / name)) for name in ("npy", "features.zarr")]
        print(f"{trials} trials of {ROWS} rows: .npy {sizes[0] / 1e9:.2f} GB, store {sizes[1] / 1e9:.2f} GB")
        for threads in words.threads:
            compare(folder, trials, words.repeat, threads)


if __name__ == "__main__":
    main()
