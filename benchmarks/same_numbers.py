"""Whether two commits compute the same: stores and runs of both, compared array by array, bit for bit.

    python benchmarks/same_numbers.py BEFORE [AFTER] --clips DIR [--work DIR]

Each commit extracts every clip below DIR (default features, then mfcc and logmel; untrained), a planted corpus with
its crops, and trains two epochs on that. Exit code 1 where anything differs, with its name.

The rebuilding of the house was held against the commit before it in steps (2c1bd07 and 510c7a7, all clips bit for bit).
Since then VGGish is computed once along the sound, whose rows differ from 2c1bd07's by rounding (CHANGELOG.md).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr

ROOT = Path(__file__).parents[1]
TRAINING = (
    "--fold",
    "0",
    "--epochs",
    "2",
    "--device",
    "cpu",
    "--no-plots",
    "--no-tensorboard",
    "--set",
    "warmup_epochs=1",
)
# Of a run's folder: what two epochs have made.
RUN_FILES = ("model.safetensors", "metrics.json", "config.json", "statistics.json")


def main() -> int:
    """Make everything twice and compare; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after", nargs="?", default="HEAD")
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    work = given.work or Path(tempfile.mkdtemp(prefix="same-numbers-"))
    work.mkdir(parents=True, exist_ok=True)
    corpus = work / "planted"
    results = []
    for name, commit in (("before", given.before), ("after", given.after)):
        checkout = work / name / "avfuse"
        if not checkout.exists():
            checkout.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["git", "clone", "--quiet", "--shared", str(ROOT), str(checkout)], check=True)
        subprocess.run(["git", "-C", str(checkout), "checkout", "--quiet", _hash(commit)], check=True)
        if not corpus.exists():
            avfuse(checkout, "synth", corpus)
        results.append(make_all(checkout, given.clips, corpus, work / name))
    differences = list(compare(*results))
    print(*differences or ["every array, attribute and file is the same"], sep="\n")
    return int(bool(differences))


def make_all(checkout: Path, clips: Path, corpus: Path, out: Path) -> Path:
    """The stores and the run of one commit, below `out`."""
    made = out / "made"
    shutil.rmtree(made, ignore_errors=True)
    common = ("--untrained", "0", "--device", "cpu")
    labels = ("--annotations", corpus / "annotations")
    crops = ("--aligned", corpus / "cropped_aligned")
    avfuse(checkout, "extract", "--videos", clips, "--store", made / "default.zarr", *common, may_fail=True)
    sound = ("--features", "mfcc,logmel")
    avfuse(checkout, "extract", "--videos", clips, "--store", made / "sound.zarr", *sound, *common, may_fail=True)
    avfuse(checkout, "extract", "--videos", corpus / "videos", *labels, *crops, "--store", made / "crops.zarr", *common)
    avfuse(checkout, "train", "--store", made / "crops.zarr", *labels, "--out", made / "run", *TRAINING)
    return made


def avfuse(checkout: Path, *words: object, may_fail: bool = False) -> None:
    """One command of this checkout; `may_fail`: exit code 3, some videos failed, will do."""
    command = [sys.executable, "-m", "avfuse", *map(str, words)]
    print("$", checkout.parent.name, *command[2:], flush=True)
    environment = {**os.environ, "PYTHONPATH": str(checkout.parent)}
    code = subprocess.run(command, env=environment, check=False, cwd=checkout.parent).returncode
    if code and not (may_fail and code == 3):
        raise SystemExit(f"{' '.join(command)} ended with exit code {code}")


def compare(before: Path, after: Path) -> Iterator[str]:
    """A line for everything that differs."""
    for name in ("default.zarr", "sound.zarr", "crops.zarr"):
        one, other = (zarr.open_group(folder / name, mode="r") for folder in (before, after))
        members = [dict(group.members(max_depth=None)) for group in (one, other)]
        yield from (f"{name}: {key} is in one of them only" for key in sorted(members[0].keys() ^ members[1].keys()))
        for key in sorted(members[0].keys() & members[1].keys()):
            first, second = members[0][key], members[1][key]
            if isinstance(first, zarr.Array) != isinstance(second, zarr.Array):
                yield f"{name}: {key} is an array in one of them only"
            elif (
                isinstance(first, zarr.Array)
                and isinstance(second, zarr.Array)
                and not _same(np.asarray(first[...]), np.asarray(second[...]))
            ):
                yield f"{name}: rows of {key}"
            yield from (f"{name}: attribute {each}" for each in _unlike(dict(first.attrs), dict(second.attrs), key))
        print(f"{name}: {len(members[0])} groups and arrays compared", flush=True)
    files = [
        *RUN_FILES,
        *sorted(str(path.relative_to(before / "run")) for path in before.glob("run/predictions/**/*.txt")),
    ]
    for name in files:
        if (before / "run" / name).read_bytes() != (after / "run" / name).read_bytes():
            yield f"run: {name}"
    print(f"run: {len(files)} files compared", flush=True)


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def _unlike(one: dict[str, Any], other: dict[str, Any], key: str) -> Iterator[str]:
    for name in sorted(one.keys() | other.keys()):
        if one.get(name) != other.get(name):
            yield f"{name} of {key}: {str(one.get(name))[:200]} before, {str(other.get(name))[:200]} after"


def _hash(commit: str) -> str:
    found = subprocess.run(["git", "rev-parse", commit], cwd=ROOT, capture_output=True, text=True, check=True)
    return found.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
