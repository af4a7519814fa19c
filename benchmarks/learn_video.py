"""What is learned from video alone: a planted corpus, untrained backbones, and the controls beside it.

    python benchmarks/learn_video.py [--trials 40] [--seconds 10] [--folder DIR] [--device cpu] [--workers 1]
                                    [--seeds 3]

`avfuse synth` → `avfuse extract --untrained 0` on the aligned crops → `avfuse train` on fold 0, five times: both
modalities with S1 as it is, both with a short reach of the attention, the face alone, the voice alone, and labels
that belong to other trials. Prints the P of each on the clips that were not trained on. Then `avfuse compare` of all
heads on the same store and fold, each with both modalities and the same settings of the run, as many times as --seeds
says. With --folder what is there already is used again.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
from pathlib import Path

import yaml
from measure import avfuse, machine

from avfuse.fusion.models.table import HEADS

VALIDATION = "VA_Estimation_Challenge/Validation_Set"
SHARED = {
    "statistics": "feature",
    "window_frames": 150,
    "hop_frames": 50,
    "lr": 1e-3,
    "warmup_epochs": 2,
    "early_stop": 15,
}
RUNS: dict[str, dict[str, object]] = {
    "face and voice, S1": {},
    "face and voice, attention_reach=25": {"attention_reach": 25},
    "face alone": {"modalities": "iresnet50"},
    "voice alone": {"modalities": "vggish,logmel_vgg", "attention_reach": 25},
    "shuffled labels": {"attention_reach": 25},
}


def call(*words: str) -> str:
    """Run avfuse to its end; returns its stdout."""
    return subprocess.run(avfuse(*words), check=True, stdout=subprocess.PIPE, text=True).stdout


def shuffle(annotations: Path, out: Path) -> None:
    """Give every trial of a set the labels of another one of the set, repeated or cut to its length."""
    for folder in sorted(path for path in annotations.rglob("*_Set") if path.is_dir()):
        files = sorted(folder.glob("*.txt"))
        donors = files[1:] + files[:1]
        random.Random(0).shuffle(donors)
        for own, donor in zip(files, donors, strict=True):
            header, *rows = donor.read_text().splitlines()
            count = len(own.read_text().splitlines()) - 1
            target = out / own.relative_to(annotations)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("\n".join([header, *(rows * (count // len(rows) + 1))[:count], ""]))


def score(folder: Path, name: str, changes: dict[str, object], epochs: int, device: str) -> dict[str, float]:
    """Train one of RUNS; its metrics."""
    labels = folder / ("shuffled" if name.startswith("shuffled") else "corpus/annotations")
    settings = {**SHARED, **changes}
    words = [f"--set={key}={value}" for key, value in settings.items()]
    out = folder / "runs" / name.replace(" ", "_").replace(",", "")
    words += ["--store", str(folder / "features.zarr"), "--annotations", str(labels), "--out", str(out)]
    words += ["--epochs", str(epochs), "--device", device]
    metrics = call("train", "--fold", "0", "--no-plots", "--no-tensorboard", "--json", *words)
    found: dict[str, float] = json.loads(metrics)[0]
    return found


def compare_heads(folder: Path, words: argparse.Namespace) -> None:
    """A cell for each network of the table, `avfuse` first, and S1 with a short reach; prints compare's tables."""
    named = {head.network: name for name, head in reversed(HEADS.items())}
    cells: list[dict[str, object]] = [{"name": name, "preset": name} for name in named.values()]
    cells.append({"name": "crossattn-reach25", "preset": "crossattn", "set": {"attention_reach": 25}})
    cells.sort(key=lambda cell: cell["name"] != "avfuse")
    grid = folder / "grid.yaml"
    grid.write_text(yaml.safe_dump({"cells": cells}))
    options = [f"--set={key}={value}" for key, value in SHARED.items()]
    options += ["--modalities", "iresnet50,vggish,logmel_vgg", "--device", words.device, "--workers", words.workers]
    options += ["--store", str(folder / "features.zarr"), "--annotations", str(folder / "corpus/annotations")]
    options += ["--grid", str(grid), "--out", str(folder / "heads"), "--seeds", words.seeds, "--fold", "0"]
    options += ["--task", "va", "--epochs", str(words.epochs), "--no-tensorboard"]
    print(call("compare", *options), flush=True)


def main() -> None:
    """Make the corpus, extract, train, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", default="40")
    parser.add_argument("--seconds", default="10")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--workers", default="1")
    parser.add_argument("--seeds", default="3")
    words = parser.parse_args()
    folder = words.folder or Path(tempfile.mkdtemp(prefix="learn_video."))
    corpus = folder / "corpus"
    if not (corpus / "planted.json").is_file():
        call("synth", str(corpus), "--trials", words.trials, "--seconds", words.seconds)
    aligned = ["--aligned", str(corpus / "cropped_aligned"), "--annotations", str(corpus / "annotations")]
    store = ["--store", str(folder / "features.zarr"), "--untrained", "0", "--precision", words.precision]
    store += ["--device", words.device]
    call("extract", "--videos", str(corpus / "videos"), *aligned, *store)
    shuffle(corpus / "annotations", folder / "shuffled")
    print(machine())
    print(f"{words.trials} clips of {words.seconds} s, seed 0, untrained networks; {SHARED}")
    print(f"{'':36}  valence  arousal      P  epoch")
    for name, changes in RUNS.items():
        found = score(folder, name, changes, words.epochs, words.device)
        numbers = "  ".join(f"{found[key]:7.3f}" for key in ("ccc_valence", "ccc_arousal", "P"))
        print(f"{name:36}  {numbers}  {found['epoch']:5}", flush=True)
    compare_heads(folder, words)


if __name__ == "__main__":
    main()
