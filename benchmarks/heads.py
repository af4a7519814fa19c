"""What every head learns from features whose truth is known: all of HEADS on both planted laws, several seeds.

    python benchmarks/heads.py [--out heads.jsonl] [--seeds 3] [--epochs 12] [--heads avfuse,concat] [--small]

Stores, laws and scores are those of tests/fusion (conftest.py, test_planted.py), with the widths of the real features
(512, 128, 128) and each preset's own network. All heads learn alike, whatever their presets say: lr 1e-3 after one
epoch of warm-up, batches of 12 windows, as many epochs. A seed is a store of its own, and draws the network. S1 with a
reach of 12 frames is a row of its own. Each run is a line of --out: what is there is not done again, so that the
script goes on where it was stopped. `--small`: features (64, 32, 32) wide and networks of the suite over all heads,
in minutes. Prints each run, then mean ± sd over the seeds as a table of docs/heads.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from measure import machine
from planted import module

from avfuse.fusion.config import TrainConfig
from avfuse.fusion.models.table import HEADS
from avfuse.fusion.settings import preset, with_settings

LAWS = ("context", "lag")
NEAR = {"crossattn, reach 12": ("crossattn", {"attention_reach": "12"})}


def systems(chosen: list[str]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Name, preset and changed settings of each row: one preset a network, and S1 with a reach."""
    seen = set()
    for name, head in HEADS.items():
        if head.network not in seen and (not chosen or name in chosen):
            yield name, name, {}
            yield from ((row, name, changes) for row, (of, changes) in NEAR.items() if of == name)
        seen.add(head.network)


def config_of(name: str, changes: dict[str, str], epochs: int, seed: int, small: bool) -> TrainConfig:
    """The settings of a run; the features are the planted ones, all three."""
    config = preset(name)
    if small:
        config = replace(config, model=replace(config.model, **module("test_every_head").SMALL.get(name, {})))
    return replace(
        with_settings(config, changes),
        task="va",
        modalities=module("conftest").MODALITIES,
        lr=3e-3 if small else 1e-3,
        warmup_epochs=1,
        batch_size=12,
        max_epochs=epochs,
        seed=seed,
    )


def main() -> None:
    """Plant, train, print; then the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--heads", default="")
    parser.add_argument("--small", action="store_true")
    words = parser.parse_args()
    plant, scores = module("conftest").plant, module("test_planted").scores
    out = words.out or Path(tempfile.mkdtemp(prefix="heads.")) / "heads.jsonl"
    rows: list[dict[str, Any]] = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    widths = (64, 32, 32) if words.small else (512, 128, 128)
    scale = {"small": words.small, "epochs": words.epochs}
    print(machine(), out, sep="\n", flush=True)
    for seed in range(words.seeds):
        for law in LAWS:
            with tempfile.TemporaryDirectory() as folder:
                planted = cache(
                    lambda place=Path(folder), law=law, seed=seed: plant(place, law, widths=widths, seed=seed)
                )
                for row, name, changes in systems(words.heads.split(",") if words.heads else []):
                    what = {"head": row, "law": law, "seed": seed, **scale}
                    if any(what.items() <= each.items() for each in rows):
                        continue
                    began_s = time.process_time()
                    run = Path(folder) / row
                    p, joint = scores(planted(), run, config_of(name, changes, words.epochs, seed, words.small))
                    metrics = json.loads((run / "metrics.json").read_text())
                    found = {
                        "P": p,
                        "valence": metrics["ccc_valence"],
                        "arousal": metrics["ccc_arousal"],
                        "joint": joint,
                    }
                    rows.append({**what, **found, "cpu_s": round(time.process_time() - began_s)})
                    with out.open("a") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
                    numbers = "  ".join(f"{key} {value:6.3f}" for key, value in found.items())
                    print(f"{row:22} {law:8} seed {seed}  {numbers}  {rows[-1]['cpu_s']} s", flush=True)
    print("\n| head | law | P | arousal | joint part | seeds |\n|---|---|---|---|---|---|")
    for row, *_ in systems(words.heads.split(",") if words.heads else []):
        for law in LAWS:
            done = [each for each in rows if {"head": row, "law": law, **scale}.items() <= each.items()]
            cells = []
            for key in ("P", "arousal", "joint"):
                values = [each[key] for each in done]
                deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.3f}{deviation}" if values else "–")
            print(f"| `{row}` | `{law}` | {' | '.join(cells)} | {len(done)} |")


if __name__ == "__main__":
    main()
