"""A fusion head trained from a preset, with settings of your own; then its scores and its predictions.

python examples/train_preset.py features.zarr planted/annotations runs/example
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

from avfuse.cli import main as avfuse


def main() -> None:
    """Train fold 0, then look at what is in the run's folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--modalities", default="mfcc", help="features of the store; the first one leads")
    parser.add_argument("--preset", default="concat")
    parser.add_argument("--epochs", default="10")
    arguments = parser.parse_args()

    # A small corpus: short windows, a larger learning rate, a short warm-up.
    settings = ["window_frames=60", "hop_frames=30", "batch_size=4", "lr=0.03", "warmup_epochs=1"]
    words = ["--store", arguments.store, "--annotations", arguments.annotations, "--out", arguments.out]
    words += ["--fold", "0", "--preset", arguments.preset, "--modalities", arguments.modalities]
    words += [
        "--no-plots",
        "--no-tensorboard",
        "--epochs",
        arguments.epochs,
        *(f"--set={setting}" for setting in settings),
    ]
    avfuse(["train", *map(str, words)], standalone_mode=False)  # as on the command line, in this process

    metrics = json.loads((arguments.out / "metrics.json").read_text())
    print(
        f"epoch {metrics['epoch']}: CCC of valence {metrics['ccc_valence']:.3f}, arousal {metrics['ccc_arousal']:.3f}"
    )
    for path in sorted((arguments.out / "predictions").rglob("*.txt")):
        with path.open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        print(f"{path.stem}: {len(rows)} frames, valence {rows[0]['valence']} … {rows[-1]['valence']}")


if __name__ == "__main__":
    main()
