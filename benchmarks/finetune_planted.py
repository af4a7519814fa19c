"""What tuning adds to a frozen network: a planted picture detail, clips that nothing was chosen by, and the controls.

    python benchmarks/finetune_planted.py [--seeds 2] [--epochs 24] [--picture FILE]

    crop of 48 px   light and shade, anew in every frame, and a tint of the whole picture    say nothing
                    a spot below the middle, up to 5 px wide, redder or greener than it      by as much as valence says

The spot is a fiftieth of what varies in a picture, so the 16 numbers a row of an untrained network, a few blocks of
IR-50's kind, hardly have it: that is the frozen control, under the same head, trainer and schedule. Tuned, its last
layer, last block and first block are released one after another. Labels of other clips are the second control. The
best epoch is chosen on validation clips; the P that counts is on test clips that neither side has. Ends with 1 where
tuned is not 0.3 above frozen, or other clips' labels are learned.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import machine
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from avfuse.encoders.networks.ir50 import Unit
from avfuse.encoders.networks.layouts import fill_untrained
from avfuse.features_store.store import FeatureStore
from avfuse.fusion.artifacts.folder import Description, Features
from avfuse.fusion.config import FinetuneConfig, RunConfig, TrainConfig
from avfuse.fusion.data.batches import Batches
from avfuse.fusion.data.dataset import Dataset, load
from avfuse.fusion.data.matching import TrialSource
from avfuse.fusion.data.runtime import Room
from avfuse.fusion.data.views import View
from avfuse.fusion.finetuning.backbones import Backbone, Group
from avfuse.fusion.finetuning.learner import TunedLearner, init_tuned
from avfuse.fusion.folds.manifest import Fold
from avfuse.fusion.models.concat import ConcatSettings
from avfuse.fusion.results.report import report
from avfuse.fusion.tasks.table import TASKS
from avfuse.fusion.training.stitch import by_trial, predict
from avfuse.fusion.training.train import train

CLIPS = {"train": 16, "validation": 6, "test": 30}
FRAMES, PX, DIM = 100, 48, 16
SPOT = 20.0  # grey levels of red and green at full valence
LEAST_GAIN, MOST_SHUFFLED = 0.3, 0.1
CPU = torch.device("cpu")
GROUPS = (Group("output", ("3.*",)), Group("last block", ("2.*",)), Group("first block", ("1.*",)))
# One epoch without a better P but one is a reduction, and one reduction is below the floor: the next group is due.
CONFIG = TrainConfig(
    preset="concat",
    task="valence",
    modalities=("iresnet50",),
    window_frames=50,
    hop_frames=50,
    batch_size=2,
    lr=1e-3,
    min_lr=1e-3,
    warmup_epochs=1,
    plateau_patience=1,
    early_stop=8,
    finetune=FinetuneConfig(audio="none", backbone_lr=1e-3, release_epochs=3),
    model=ConcatSettings(),
)
RUNS = ("frozen", "tuned", "tuned, labels of other clips")


@dataclass(frozen=True)
class Planted:
    """The data set, and the names of the clips of each side."""

    data: Dataset
    sides: dict[str, tuple[str, ...]]


def valence(rng: np.random.Generator) -> NDArray[np.float64]:
    """A clip's valence [T]: it drifts, with a memory of some frames, within -1 and 1."""
    drawn, keep = rng.standard_normal(FRAMES), np.exp(-1 / 4)
    for at in range(1, FRAMES):
        drawn[at] = keep * drawn[at - 1] + np.sqrt(1 - keep**2) * drawn[at]
    return np.tanh(0.8 * drawn)


def crops(rng: np.random.Generator, valences: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A clip's faces [T, 48, 48, 3]."""
    coarse = torch.from_numpy(rng.standard_normal((FRAMES + 1, 1, 6, 6)))
    shade = nn.functional.interpolate(coarse, size=(PX, PX), mode="bicubic").numpy()[:, 0, :, :, None]
    pictures = 120 + rng.uniform(-20, 20) + 25 * (shade[:1] + shade[1:])  # the clip's, and the frame's
    pictures = pictures + 10 * rng.standard_normal((FRAMES, 1, 1, 3)) + 6 * rng.standard_normal((FRAMES, PX, PX, 3))
    y, x = np.mgrid[:PX, :PX]
    below, beside = (middle + rng.integers(-1, 2, (FRAMES, 1, 1)) for middle in (30, 24))
    spot = np.exp(-((x - beside) ** 2 + (y - below) ** 2) / (2 * 3.0**2))
    pictures += SPOT * (valences[:, None, None] * spot)[..., None] * [1, -1, 0]
    faces: NDArray[np.uint8] = pictures.clip(0, 255).round().astype(np.uint8)
    return faces


def plant(folder: Path, seed: int, shuffled: bool) -> Planted:
    """Write the clips' crops to a store, and read them as the trainer does; `shuffled`: the next clip's labels."""
    store, sources = FeatureStore(folder / "features.zarr", mode="a"), {}
    sides = {side: tuple(f"{side}_{number}" for number in range(count)) for side, count in CLIPS.items()}
    for at, (side, names) in enumerate(sides.items()):
        drawn = [valence(np.random.default_rng([seed, at, number])) for number in range(len(names))]
        for number, name in enumerate(names):
            faces = crops(np.random.default_rng([seed, at, number, 1]), drawn[number])
            arrays: dict[str, NDArray[Any]] = {
                "time": np.arange(FRAMES) / 30,
                "crop48": faces,
                "crop48_valid": np.ones(FRAMES, np.bool_),
            }
            store.write(name, arrays, {"fingerprint": f"planted {side}"})
            shown = drawn[(number + 1) % len(names)] if shuffled else drawn[number]
            labels = np.stack([shown, np.zeros(FRAMES)], 1).astype(np.float32)
            sources[name] = TrialSource(name, name, labels, np.ones(FRAMES, np.bool_))
    views = {"iresnet50": View("crop48", DIM)}
    return Planted(load(store, sources, CONFIG.modalities, Room(CPU, 1 << 40, 1 << 40), views=views), sides)


def backbone_of(seed: int) -> Backbone:
    """Faces [N, 3, 40, 40] → [N, 16]: input layer, two blocks and output layer as IR-50 has them, a tenth as wide."""
    network = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.PReLU(16)),
        Unit(16, 16, 2),
        Unit(16, 32, 2),
        nn.Sequential(nn.BatchNorm2d(32), nn.Flatten(), nn.Linear(32 * 5 * 5, DIM), nn.BatchNorm1d(DIM)),
    )
    fill_untrained(network, seed, "iresnet50")
    network = network.to(memory_format=torch.channels_last).eval().requires_grad_(requires_grad=False)
    return Backbone("iresnet50", "crop48", network, DIM, 40, GROUPS)


def learn(planted: Planted, config: TrainConfig, folder: Path) -> tuple[float, dict[str, Any]]:
    """P on the test clips with the best epoch's networks, and that epoch's line of the history."""
    data, sides = planted.data, planted.sides
    features = Features("planted", {}, (), {})
    statistics_ = data.statistics(sides["train"], config)
    fold = Fold(0, sides["train"], sides["validation"])
    described = Description(config, fold, statistics_, features, "planted", "")
    run = RunConfig(device="cpu")
    backbone = backbone_of(config.seed)
    kept: list[TunedLearner] = []

    def init(*words: Any) -> TunedLearner:
        kept.append(init_tuned(*words, described=described, backbones={"iresnet50": backbone}))
        return kept[0]

    folder.mkdir()
    outcome = train(described, data, run, folder, init=init)
    (learner,) = kept  # its networks are those of the best epoch now
    task = TASKS[config.task]
    seen = learner.seen(data, sides["test"])
    rows = predict(
        learner.model, seen, Batches(seen, statistics_, config), seen.windows(sides["test"], config), task, "fp32"
    )
    tested = report([data.sources[name] for name in sides["test"]], by_trial(seen, sides["test"], rows), task)
    best = max(outcome.history, key=lambda row: float(row["P"]))
    return tested.p, {**best, "epochs": len(outcome.history), "last_released": outcome.history[-1]["released"]}


def save_picture(path: Path) -> None:
    """Twelve frames of two clips, three times as large, and their valence on the screen."""
    lines = []
    for number in range(2):
        drawn = valence(np.random.default_rng([0, 0, number]))
        lines.append(np.concatenate(crops(np.random.default_rng([0, 0, number, 1]), drawn)[:12], 1))
        print(" ".join(f"{each:5.2f}" for each in drawn[:12]))
    picture = Image.fromarray(np.concatenate(lines))
    picture.resize((3 * picture.width, 3 * picture.height), Image.Resampling.NEAREST).save(path)


def main() -> None:
    """Plant, train, test, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--picture", type=Path)
    words = parser.parse_args()
    if words.picture:
        save_picture(words.picture)
    print(machine())
    print(f"{'':30} seed  P on test clips  on validation  best epoch, of  groups then, at the end  CPU s")
    found: dict[str, list[float]] = {name: [] for name in RUNS}
    for seed in range(words.seeds):
        for name in RUNS:
            tuning = replace(CONFIG.finetune, releases=0) if name == "frozen" and CONFIG.finetune else CONFIG.finetune
            config = replace(CONFIG, seed=seed, max_epochs=words.epochs, finetune=tuning)
            with tempfile.TemporaryDirectory() as folder:
                began_s = time.process_time()
                p, best = learn(plant(Path(folder), seed, "other" in name), config, Path(folder) / "run")
            found[name].append(p)
            print(
                f"{name:30} {seed:4}  {p:15.3f}  {best['P']:13.3f}  {best['epoch']:10}, {best['epochs']:2}"
                f"  {best['released']:11}, {best['last_released']:10}  {time.process_time() - began_s:5.0f}",
                flush=True,
            )
    frozen, tuned, shuffled = (statistics.mean(found[name]) for name in RUNS)
    print(f"tuned above frozen: {tuned - frozen:.3f} (at least {LEAST_GAIN}); labels of other clips: {shuffled:.3f}")
    if tuned - frozen < LEAST_GAIN or abs(shuffled) > MOST_SHUFFLED:
        raise SystemExit("missed")


if __name__ == "__main__":
    main()
