"""Small backbones, and what a step of them takes, for the tests of this folder."""

from typing import Any

import numpy as np
import torch
from torch import nn

from avfuse.encoders.networks.ir50 import Unit
from avfuse.encoders.networks.layouts import fill_untrained
from avfuse.fusion.artifacts.folder import Description, Features
from avfuse.fusion.finetuning.backbones import Backbone, Group
from avfuse.fusion.folds.manifest import Fold

GROUPS = (Group("head", ("5.*",)), Group("second", ("3.*",)), Group("first", ("2.*",)))


def face_network(dropout: float = 0.0, seed: int = 0) -> nn.Module:
    """A few blocks of IR-50's kind: faces [N, 3, 40, 40] → [N, 6]."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        Unit(8, 8, 2),
        Unit(8, 16, 2),
        nn.Sequential(nn.Dropout(dropout), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(16, 6),
    )
    fill_untrained(network, seed, "iresnet50")
    return network.eval().requires_grad_(requires_grad=False)


def face_backbone(**settings: Any) -> Backbone:
    """A backbone that is fed the store's crops of 48 px."""
    return Backbone("iresnet50", "crop48", face_network(**settings), 6, 40, GROUPS)


def sound_backbone() -> Backbone:
    """A backbone that is fed log-mel patches: [N, 1, 96, 64] → [N, 5]."""
    network = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(96, 7), nn.ReLU(), nn.Linear(7, 5))
    fill_untrained(network, 1, "logmel_vgg")
    groups = (Group("last", ("4.*",)), Group("before", ("2.*",)))
    return Backbone("logmel_vgg", "logmel", network.eval().requires_grad_(requires_grad=False), 5, None, groups)


def description(config: Any, train: tuple[str, ...], validation: tuple[str, ...]) -> Description:
    """What a run on these trials is."""
    features = Features("store", {}, (), {})
    return Description(config, Fold(0, train, validation), {}, features, "annotations", "")


def crops(rng: np.random.Generator, rows: int, px: int = 48) -> np.ndarray:
    """Random faces uint8 [rows, px, px, 3]."""
    return rng.integers(0, 256, (rows, px, px, 3), np.uint8)


def views(rng: np.random.Generator, rows: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Arrays of a trial, its views beside a feature `voice`, and their masks, all real."""
    arrays = {
        "time": np.arange(rows) / 30,
        "crop48": crops(rng, rows),
        "logmel": patches(rng, rows),
        "voice": rng.standard_normal((rows, 3)).astype(np.float32),
    }
    return arrays, {f"{each}_valid": np.ones(rows, bool) for each in ("crop48", "logmel", "voice")}


def patches(rng: np.random.Generator, rows: int, rate_hz: float = 30) -> np.ndarray:
    """Log-mel patches float32 [rows, 96, 64] of consecutive rows, as `extract` cuts them."""
    starts = np.rint(np.arange(rows) / rate_hz * 100).astype(int)
    frames = rng.standard_normal((starts[-1] + 96, 64)).astype(np.float32)
    return np.stack([frames[start : start + 96] for start in starts])


def equal_tensors(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    """Names whose tensors are the same bit for bit."""
    return {name for name in one if torch.equal(one[name], other[name])}
