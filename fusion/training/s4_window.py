"""S4's way to validate, for its number beside the honest one: on windows that overlap those the network learns from.

    a training trial, 80 % overlap    ├────────────┤ learned
                                         ├────────────┤ learned
                                            ├────────────┤ validated: nearly all of its frames are in its neighbours
                                               ├────────────┤ learned

A quarter of the training trials' windows, drawn at random, is validated on; the score is the mean of the windows' own
CCCs, an undefined one counting as 0. It says how well a network remembers, and can be compared with no other number.
Source: docs/sources.md (S4's windows). Tested by tests/fusion/training/test_s4_window.py.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ...encoders.contract import Precision
from ..config import TrainConfig
from ..data.batches import Batches
from ..data.dataset import Dataset
from ..data.runtime import autocast
from ..data.windows import Windows
from ..results.report import Report
from ..tasks.task import Task
from .stitch import predict_batch

LEAKY = "S4's windows (leaky)"
SHARE = 0.25
_HOPS = 5  # to a window: an overlap of 80 %
_DRAW = 4  # apart from what else is drawn from the run's seed


def s4_settings(config: TrainConfig) -> TrainConfig:
    """The same run under S4's protocol: windows that overlap by 80 %."""
    return replace(config, protocol="s4-window", hop_frames=max(1, config.window_frames // _HOPS))


def draw_windows(windows: Windows, seed: int) -> tuple[Windows, Windows]:
    """Windows to learn from, and a quarter to validate on. Raises ValueError if there is only one."""
    if len(windows) < 2:
        raise ValueError("the training trials have one window, and S4's protocol validates on others of them")
    drawn = torch.from_numpy(np.random.default_rng([seed, _DRAW]).permutation(len(windows)))
    count = max(1, round(SHARE * len(windows)))

    def subset(chosen: Tensor) -> Windows:
        rows = chosen.sort().values
        return Windows(windows.start[rows], windows.length[rows])

    return subset(drawn[count:]), subset(drawn[:count])


def score_windows(
    model: nn.Module, data: Dataset, batches: Batches, windows: Windows, task: Task, precision: Precision
) -> Report:
    """The mean over these windows of each one's own scores, over its labelled rows."""
    found: dict[str, list[float]] = {}
    frames = 0
    model.eval()
    with torch.inference_mode(), autocast(data.labels.device, precision):
        for batch in batches.all(windows):
            rows = task.finish(predict_batch(model, batch, task).cpu().numpy())
            labels, labelled = (each[batch.index].cpu().numpy() for each in (data.labels, data.labelled))
            frames += int(labelled.sum())
            for window in zip(rows, labels, labelled, strict=True):
                for key, score in task.scorer(*window).items():
                    found.setdefault(key, []).extend([] if score is None else [score])
    means = {key: float(np.mean(scores)) if scores else None for key, scores in found.items()}
    return Report(task, frames, means, {}, ())
