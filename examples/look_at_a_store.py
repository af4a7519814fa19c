"""A trial as a table of pandas and as a data set of xarray: gaps, means by the second, a feature beside another.

    python examples/look_at_a_store.py features.zarr --feature mfcc

Both read the trial into memory and check every chunk; `avfuse[xarray,pandas]` brings them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from avfuse.features_store.store import FeatureStore


def main() -> None:
    """Print what the first trial holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--feature", default="mfcc")
    parser.add_argument("--trial", help="[default: the first one]")
    arguments = parser.parse_args()
    store, feature = FeatureStore(arguments.store), arguments.feature
    trial = arguments.trial or store.trials()[0]

    table = store.to_pandas(trial, [feature])  # one row per frame, by time in s
    valid = table.pop(f"{feature}_valid")
    print(f"{trial}: {len(table)} frames, {valid.mean():.0%} of {feature} valid, {table.index[-1]:.2f} s")
    by_second = table[valid].groupby(table.index[valid].astype(int)).mean()
    print(f"means of {feature} by the second: {len(by_second)} × {len(by_second.columns)}")
    print(by_second.iloc[:3, :3].round(3))

    data = store.to_xarray(trial)  # every array, with names of axes, units, and the trial's attributes
    real = data[feature].where(data[f"{feature}_valid"])
    print(f"by xarray: {dict(real.sizes)}, spread {float(real.std()):.3f}, fps {data.attrs.get('fps', 'unknown')}")


if __name__ == "__main__":
    main()
