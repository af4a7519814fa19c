"""What every head learns from features whose truth is known: `avfuse compare` over all of HEADS on both planted laws.

    python benchmarks/heads.py [--out heads] [--seeds 3] [--epochs 10] [--full] [--laws context,lag]
                              [--device cpu] [--workers 1]

Stores and laws are those of tests/fusion (conftest.py), the features 64, 32 and 32 wide and the networks made small as
in the suite over all heads; with `--full` features and networks have their real widths. All heads learn alike,
whatever their presets say. Runs that are there are not done again: start it once more to go on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from measure import machine
from planted import module

from avfuse.fusion.models.table import HEADS

ALIKE = {
    "lr": "5e-3",
    "warmup_epochs": "1",
    "plateau_patience": "0",
    "plateau_factor": "0.3",
    "weight_decay": "1e-3",
    "batch_size": "8",
    "window_frames": "100",
    "hop_frames": "100",
}
FULL = {**ALIKE, "lr": "1e-3", "batch_size": "12", "window_frames": "300", "hop_frames": "200"}
STORE_SEED = 1000  # none that a head was made with


def grid(full: bool) -> dict[str, list[dict[str, Any]]]:
    """A cell for each network of the table, and S1 with a reach of 12 frames."""
    small = module("test_every_head").SMALL
    named = {head.network: name for name, head in reversed(HEADS.items())}
    cells: list[dict[str, Any]] = [
        {"name": name, "preset": name, "set": {} if full else dict(small.get(name, {}))} for name in named.values()
    ]
    near = next(cell for cell in cells if cell["name"] == "crossattn")
    cells.append({**near, "name": "crossattn-reach12", "set": {**near["set"], "attention_reach": 12}})
    cells.sort(key=lambda cell: cell["name"] != "avfuse")  # the first is what the others are held against
    return {"cells": cells}


def main() -> None:
    """Plant, compare; the tables are printed by `avfuse compare`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("heads"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--laws", default="context,lag")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", default="1")
    asked = parser.parse_args()
    print(machine(), flush=True)
    size = {"widths": (512, 128, 128), "trials": 40} if asked.full else {"widths": (64, 32, 32), "trials": 40}
    rows = (900, 1200) if asked.full else (500, 600)
    settings = [f"--set={key}={value}" for key, value in (FULL if asked.full else ALIKE).items()]
    for law in asked.laws.split(","):
        folder = asked.out / law
        if not (folder / "annotations").is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            module("conftest").plant(folder, law=law, rows=rows, seed=STORE_SEED, **size)
        (folder / "grid.yaml").write_text(yaml.safe_dump(grid(asked.full)))
        print(f"\nlaw {law}", flush=True)
        words = ["--grid", "grid.yaml", "--fold", "0", "--seeds", str(asked.seeds), "--epochs", str(asked.epochs)]
        places = ["--store", "features.zarr", "--annotations", "annotations", "--out", "runs"]
        modalities = ",".join(module("conftest").MODALITIES)
        shape = ["--task", "va", "--modalities", modalities, "--no-tensorboard"]
        target = ["--device", asked.device, "--workers", asked.workers]
        command = [sys.executable, "-m", "avfuse", "compare", *words, *places, *shape, *target, *settings]
        subprocess.run(command, cwd=folder, check=True)


if __name__ == "__main__":
    main()
