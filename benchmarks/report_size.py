"""How large the pages of `avfuse report` are: a store of long trials with faces and labels.

python benchmarks/report_size.py [--trials 600] [--minutes 10]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from measure import avfuse, machine, run

from avfuse.features_store.schema import JsonValue
from avfuse.features_store.store import FeatureStore

RATE_HZ = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=600)
    parser.add_argument("--minutes", type=float, default=10)
    given = parser.parse_args()
    print(machine())
    rows = round(given.minutes * 60 * RATE_HZ)
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(f"{folder}/features.zarr", mode="a")
        rng = np.random.default_rng(0)
        for number in range(given.trials):
            name = f"batch{number % 3}/{number}-30-1920x1080"
            fill(store, name, rows, rng)
            path = Path(folder, "labels", f"{name}.csv")
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savetxt(path, drift(rng, rows, 2), "%.4f", ",", header="valence,arousal", comments="")
        words = ("report", "--store", store.path, "--annotations", f"{folder}/labels", "--out", f"{folder}/report")
        done = run(avfuse(*words))
        pages = [path.stat().st_size for path in Path(folder, "report", "trials").iterdir()]
        whole = sum(path.stat().st_size for path in Path(folder, "report").rglob("*") if path.is_file())
        index = Path(folder, "report", "index.html").stat().st_size
        print(f"{given.trials} trials of {given.minutes:g} minutes: {done.seconds:.0f} s, peak {done.peak_mib:.0f} MiB")
        sizes = {"index": index, "largest page of a trial": max(pages), "all": whole}
        print(", ".join(f"{what} {size / 1e6:.2f} MB" for what, size in sizes.items()))


def fill(store: FeatureStore, name: str, rows: int, rng: np.random.Generator) -> None:
    """A trial with a face that moves and is lost now and then, and no sound."""
    found = rng.random(rows // 30 + 1).repeat(30)[:rows] > 0.1
    box = np.float32(100) + drift(rng, rows, 4) * np.float32(50)
    box[~found] = np.nan
    arrays = {"time": np.arange(rows) / RATE_HZ, "face_box": box, "face_score": found.astype(np.float32)}
    about: dict[str, JsonValue] = {
        "fps": str(RATE_HZ),
        "vfr": False,
        "audio": "absent",
        "warnings": ["sound moved by 3 ms " * 8],
    }
    store.write(name, arrays, about)


def drift(rng: np.random.Generator, rows: int, width: int) -> np.ndarray:
    """Values in [-1, 1] that change slowly, float32 [rows, width]."""
    return np.tanh(np.cumsum(rng.normal(size=(rows, width)), axis=0) / 30).astype(np.float32)


if __name__ == "__main__":
    main()
