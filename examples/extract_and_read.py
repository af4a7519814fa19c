"""Videos to a store, then the same rows read in three ways.

    avfuse synth planted --trials 6 --seconds 4
    python examples/extract_and_read.py planted features.zarr

MFCC need no weights. With `--features iresnet50,vggish,mfcc` the networks are untrained (random numbers, seed 0):
good for trying things out, and said so in the store.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import xarray
import zarr

from avfuse.features_store.store import FeatureStore


def main() -> None:
    """Extract, then read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="what `avfuse synth` has made")
    parser.add_argument("store", type=Path)
    parser.add_argument("--features", default="mfcc")
    arguments = parser.parse_args()

    # Names and lengths of the trials come from the annotations, faces from the crops. Run again, it goes on.
    words = ["--videos", arguments.corpus / "videos", "--annotations", arguments.corpus / "annotations"]
    words += ["--aligned", arguments.corpus / "cropped_aligned", "--store", arguments.store]
    words += ["--features", arguments.features, "--untrained", "0"]
    subprocess.run([sys.executable, "-m", "avfuse", "extract", *map(str, words)], check=True)

    feature = arguments.features.split(",")[0]
    store = FeatureStore(arguments.store)
    for name in store.trials():
        trial = store[name]
        valid = trial.valid(feature)
        print(f"{name}: {trial.rows} rows, {valid.mean():.0%} of {feature} real, {trial.time_s[-1]:.2f} s")

    name = store.trials()[0]
    rows = store[name].read(feature)
    # consolidated=False: trials come and go, so the store keeps no second copy of their metadata in its root
    with xarray.open_zarr(arguments.store, group=name, consolidated=False) as data:
        second = data[feature].isel(frame=data["time"].values < 1.0)
        print(f"{name}, the first second, by xarray: {dict(second.sizes)}")
        assert np.array_equal(second.values, rows[: len(second)])
    plain = zarr.open_array(arguments.store / name / feature, mode="r")
    assert np.array_equal(plain[:], rows)
    print(f"{name}, by plain zarr: {plain.shape} {plain.dtype}, the same rows")


if __name__ == "__main__":
    main()
