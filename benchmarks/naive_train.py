"""What the field's code does: one .npy file per trial and modality, a DataLoader, a stitcher in Python lists.

Written straight after the loops of the ABAW3 lineage, with our network, loss and optimiser, so that only the way of
the data differs. Used by train_speed.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from avfuse.fusion.data.runtime import autocast
from avfuse.fusion.data.statistics import Statistics
from avfuse.fusion.tasks.ccc import ccc_loss
from avfuse.fusion.training.learner import Learner

WINDOW, HOP = 300, 200
# {modality: rows}, labels, trial, frames, how many of them are real
Item = tuple[dict[str, torch.Tensor], torch.Tensor, str, torch.Tensor, int]


class Windows(TorchDataset[Item]):
    """Windows of trials whose features lie in folder/<trial>_<modality>.npy."""

    def __init__(self, folder: Path, lengths: Mapping[str, int], statistics: Mapping[str, Statistics]) -> None:
        self.folder, self.statistics = folder, statistics
        self.items: list[tuple[str, int, int]] = []
        for trial, length in lengths.items():
            starts = list(range(0, max(length - WINDOW, 0) + 1, HOP))
            if starts[-1] + WINDOW < length:
                starts.append(length - WINDOW)
            self.items += [(trial, start, min(start + WINDOW, length)) for start in starts]

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.items)

    def __getitem__(self, at: int) -> Item:
        """Load the trial's files, cut the window out, standardise, pad."""
        trial, start, stop = self.items[at]
        features = {}
        for name, of in self.statistics.items():
            rows = np.load(self.folder / f"{trial}_{name}.npy")[start:stop]
            rows = (rows - of.mean.astype(np.float32)) / of.std.astype(np.float32)
            features[name] = torch.from_numpy(np.pad(rows, ((0, WINDOW - len(rows)), (0, 0))).astype(np.float32))
        labels = np.load(self.folder / f"{trial}_labels.npy")[start:stop]
        padded = torch.from_numpy(np.pad(labels, ((0, WINDOW - len(labels)), (0, 0))))
        return features, padded, trial, torch.arange(start, start + WINDOW), stop - start


class Stitcher:
    """Every frame keeps a list of what the windows say of it."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[int, list[NDArray[np.float32]]]] = defaultdict(lambda: defaultdict(list))

    def add(
        self, output: NDArray[np.float32], trials: Sequence[str], index: NDArray[np.int64], length: Sequence[int]
    ) -> None:
        """Add a batch."""
        for one, trial, frames, count in zip(output, trials, index, length, strict=True):
            for k in range(count):
                self.rows[trial][int(frames[k])].append(one[k])

    def mean(self) -> dict[str, NDArray[np.float32]]:
        """Mean of each frame, trial by trial."""
        return {trial: np.stack([np.mean(rows[k], axis=0) for k in sorted(rows)]) for trial, rows in self.rows.items()}


def epoch(learner: Learner, windows: Windows, batch_size: int) -> int:
    """One training epoch as the field's code has it; returns the number of windows."""
    learner.model.train()
    stitcher = Stitcher()
    device = learner.device
    for features, labels, trials, index, length in DataLoader(windows, batch_size, shuffle=True):
        rows = [features[name].to(device) for name in windows.statistics]
        mask = (torch.arange(WINDOW) < length[:, None]).to(device)
        with autocast(device, learner.run.precision):
            prediction = learner.model(rows, [mask] * len(rows), mask)
        loss = ccc_loss(prediction, labels.to(device), mask)
        learner.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        learner.optimizer.step()
        loss.item()
        stitcher.add(prediction.detach().float().cpu().numpy(), trials, index.numpy(), length.tolist())
    stitcher.mean()
    return len(windows)
