"""A network of your own on the store's rows: a GRU, trained in a loop of twenty lines.

    python examples/own_network.py features.zarr planted/annotations

Rows and masks come from the store, labels from the annotations; loss and measure are those of `avfuse train`. To have
folds, windows, checkpoints and reports as well, make it one of avfuse's heads: CONTRIBUTING.md tells how.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from avfuse.features_store.store import FeatureStore
from avfuse.fusion.tasks.ccc import ccc, ccc_loss


class Network(nn.Module):
    """rows [B, T, D] → valence and arousal [B, T, 2]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.over_time = nn.GRU(width, 16, batch_first=True)
        self.out = nn.Linear(16, 2)

    def forward(self, rows: Tensor) -> Tensor:
        """Every frame by itself and by what went before."""
        hidden, _ = self.over_time(self.norm(rows))
        prediction: Tensor = self.out(hidden)
        return prediction


def read(store: Path, annotations: Path, part: str, feature: str) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Rows [1, T, D], labels [1, T, 2] and mask bool [1, T] of the trials of `Train_Set` or `Validation_Set`."""
    features = {name.rpartition("/")[2]: name for name in FeatureStore(store).trials()}
    trials = []
    for path in sorted(annotations.rglob(f"{part}/*.txt")):
        labels = np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.float32, ndmin=2)
        trial = FeatureStore(store)[features[path.stem]]
        valid = trial.valid(feature) & (labels != -5).all(1)  # −5 masks a frame
        arrays = (trial.read(feature).astype(np.float32), labels, valid)
        rows, truth, mask = (torch.from_numpy(array)[None] for array in arrays)
        trials.append((rows, truth, mask))
    return trials


def main() -> None:
    """Train on one part, score on the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--feature", default="mfcc")
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    train, validation = (
        read(arguments.store, arguments.annotations, part, arguments.feature)
        for part in ("Train_Set", "Validation_Set")
    )
    network = Network(train[0][0].shape[-1])
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for epoch in range(1, arguments.epochs + 1):
        losses = []
        for rows, labels, valid in train:
            loss = ccc_loss(network(rows), labels, valid)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch}: loss {np.mean(losses):.3f}")

    with torch.no_grad():
        predicted = torch.cat([network(rows)[0] for rows, _, _ in validation]).clip(-1, 1).numpy()
    truth, mask = (torch.cat([trial[i][0] for trial in validation]).numpy() for i in (1, 2))
    for column, name in enumerate(("valence", "arousal")):
        score = ccc(predicted[:, column], truth[:, column], mask)
        print(f"CCC of {name} over {mask.sum()} held-out frames: {score:.3f}")


if __name__ == "__main__":
    main()
