"""A training loop of your own on windows of the store: torch's DataLoader, worker processes, masks and labels.

    python examples/own_loop.py features.zarr planted/annotations --features mfcc

`WindowDataset` cuts windows as `avfuse train` does. Here a network sees several features side by side; frames without
a face or without sound are zeros to it, and only frames with labels are in the loss.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from avfuse.features_store.labels.corpus import open_corpus
from avfuse.features_store.torch_dataset import WindowDataset
from avfuse.fusion.tasks.ccc import ccc, ccc_loss


def inputs(batch: dict[str, Any], features: list[str]) -> Tensor:
    """Features side by side, [B, W, D₁ + D₂ + …]; rows that are not valid are zeros."""
    return torch.cat([batch[name] * batch[f"{name}_valid"][..., None] for name in features], dim=-1)


def main() -> None:
    """Train on one part of the corpus, score on the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--features", default="mfcc", help="separated by commas")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    features = arguments.features.split(",")

    torch.manual_seed(0)
    sets = open_corpus(arguments.annotations).sets or {}
    everything = WindowDataset(arguments.store, features, annotations=arguments.annotations)
    loaders = {}
    for part in ("Train_Set", "Validation_Set"):
        trials = [name for name in everything.trials if sets.get(name.rpartition("/")[2]) == part]
        windows = WindowDataset(arguments.store, features, 60, 40, trials=trials, annotations=arguments.annotations)
        print(f"{part}: {len(windows)} windows of {len(trials)} trials")
        loaders[part] = DataLoader(windows, 4, shuffle=part == "Train_Set", num_workers=arguments.workers)

    width = sum(everything[0][name].shape[-1] for name in features)
    network = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, 2), nn.Tanh())
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for epoch in range(1, arguments.epochs + 1):
        losses = []
        for batch in loaders["Train_Set"]:
            loss = ccc_loss(network(inputs(batch, features)), batch["labels"], batch["labelled"])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch}: loss {np.mean(losses):.3f}")

    # A frame in two windows counts twice here; `avfuse train` takes the mean of its predictions.
    predicted, truth = [], []
    with torch.no_grad():
        for batch in loaders["Validation_Set"]:
            predicted.append(network(inputs(batch, features))[batch["labelled"]].numpy())
            truth.append(batch["labels"][batch["labelled"]].numpy())
    of_network, of_people = np.concatenate(predicted), np.concatenate(truth)
    for column, name in enumerate(("valence", "arousal")):
        score = ccc(of_network[:, column], of_people[:, column], np.ones(len(of_people), np.bool_))
        print(f"CCC of {name} in held-out windows: {score:.3f}")


if __name__ == "__main__":
    main()
