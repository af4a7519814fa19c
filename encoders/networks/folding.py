"""Batch norms folded into the convolution or linear layer before them: the same numbers, fewer passes over memory.

A norm before a padded convolution stays: at the border its shift would have to go into the padding.
Tested by tests/encoders/test_networks.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval


def fold(network: nn.Module) -> nn.Module:
    """Fold a network in eval mode in place, and return it.

    Neighbours in a Sequential follow each other; other modules name their pairs in `FOLDS`.
    """
    for owner in list(network.modules()):
        for first, norm in _pairs(owner):
            _fold_pair(owner, first, norm)
    return network


def _pairs(owner: nn.Module) -> Iterator[tuple[str, str]]:
    if isinstance(owner, nn.Sequential):
        yield from pairwise(name for name, _ in owner.named_children())
    yield from getattr(owner, "FOLDS", ())


def _fold_pair(owner: nn.Module, first: str, norm: str) -> None:
    layer, after = owner.get_submodule(first), owner.get_submodule(norm)
    if isinstance(layer, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
        folded: nn.Module = fuse_conv_bn_eval(layer, after)
    elif isinstance(layer, nn.Linear) and isinstance(after, nn.BatchNorm1d):
        folded = fuse_linear_bn_eval(layer, after)
    else:
        return
    setattr(owner, first, folded)
    setattr(owner, norm, nn.Identity())
