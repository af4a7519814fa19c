"""VGGish: torchvggish's network without its last ReLU, and its PCA. 18 tensors, 72,141,184 parameters.

    log-mel [N, 1, 96, 64] ── 6 convolutions, 4 halvings ── [N, 512, 6, 4] ── 3 linear layers ── [N, 128]

Source: docs/sources.md (VGGish). Tested by tests/parity/test_vgg.py and tests/encoders/test_overlapping.py.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor, nn


def _torchvggish(name: str) -> Any:
    """A module of torchvggish by its file: the package's own `__init__` loads numba and soundfile (0.5 s, 70 MB)."""
    package = importlib.util.find_spec("torchvggish")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'torchvggish'", name="torchvggish")
    spec = importlib.util.spec_from_file_location(
        f"avfuse_torchvggish_{name}", Path(package.origin).with_name(f"{name}.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_NETWORK, _PARAMS = _torchvggish("torchvggish"), _torchvggish("vggish_params")
PATCH_FRAMES: int = _PARAMS.NUM_FRAMES
PATCH_BANDS: int = _PARAMS.NUM_BANDS
DIM: int = _PARAMS.EMBEDDING_SIZE
_PCA_MIN: float = _PARAMS.QUANTIZE_MIN_VAL
_PCA_MAX: float = _PARAMS.QUANTIZE_MAX_VAL
_PCA_LEVELS = 255


def vggish() -> nn.Module:
    """Log-mel patches [N, 1, 96, 64] → embeddings [N, 128], up to the last linear layer: no final ReLU, no PCA."""
    network = _NETWORK.VGG(_NETWORK.make_layers(), postprocess=False)
    network.embeddings = network.embeddings[:-1]
    built: nn.Module = network
    return built


def flattened(maps: Tensor) -> Tensor:
    """Maps [N, 512, 6, 4] → [N, 12288], channels last as VGGish's first linear layer wants them."""
    return maps.permute(0, 2, 3, 1).flatten(1)


def is_vggish(network: nn.Module) -> bool:
    """Whether a network is VGGish's, by its layers."""
    return isinstance(network, _NETWORK.VGG)


class OverlappingVggish:
    """VGGish on patches that overlap: a row of a map that several of them have in common is computed once.

        frame       0  1  2  3  4  …            a patch at 0:  z 0 1 2 … 95 z       z: the zeros beyond an edge
                                                a patch at 4:  z 4 5 6 … 99 z
        convolved   (0 1 2) (1 2 3) … (4 5 6)   of both;  (z 0 1) of the one, (z 4 5) of the other

    In time a row of a map is made from three rows of the map below, or two of them where it is halved, and only from
    these: rows made from the same ones are the same row. So a map is a list of different rows, with a table of where
    each patch has which. What a patch has for itself is what its edges reach: 4 of 48 rows after the second
    convolution, 8 of 12 after the last. A convolution is three products, one for each row of its kernel, of the rows
    below it alone, then their sum: a row below, however many rows it is part of, is multiplied once.
    Of 64 patches together that leaves 0.60 of 1.73 GFLOP a patch at 25 frames/s, and 0.84 at 30, where starts fall on
    odd frames too; 0.13 of them are the linear layers'.
    """

    def __init__(self, network: nn.Module) -> None:
        """Take the layers of `vggish()`, on the device and in the precision that they have."""
        layers = list(_children(network, "features"))
        followers = [*layers[2:], None, None]
        # The kernel of a convolution, by its row in time: [3, 3 bands · channels, channels out].
        self._convolutions = [
            (
                layer.weight.detach().permute(2, 3, 1, 0).flatten(1, 2).contiguous(),
                layer.bias.detach(),
                isinstance(follower, nn.MaxPool2d),
            )
            for layer, follower in zip(layers, followers, strict=True)
            if isinstance(layer, nn.Conv2d) and layer.bias is not None
        ]
        self._linear = nn.Sequential(*_children(network, "embeddings"))

    def __call__(self, frames: Tensor, firsts: NDArray[np.int64]) -> Tensor:
        """Rows [N, 128] of the patches at frames [firsts[i], firsts[i] + 96) of log-mel `frames` [F, 64].

        Equal to the network's on each patch alone, but for rounding.
        """
        rows = frames[:, :, None]  # [U, bands, channels]: all the different rows of the map
        table = firsts[:, None] + np.arange(PATCH_FRAMES)  # [N, length]: which of them each patch has
        for kernel, bias, is_halved in self._convolutions:
            edged = np.pad(table, ((0, 0), (1, 1)), constant_values=len(rows))
            below, table = _different(sliding_window_view(edged, 3, axis=1))
            rows = F.pad(rows, (0, 0, 1, 1, 0, 1))  # a band of zeros at either side, and the row of zeros at the end
            rows = torch.cat([rows[:, :-2], rows[:, 1:-1], rows[:, 2:]], dim=2)
            rows = sum_of_products(rows, kernel, below)
            if is_halved:
                rows = torch.maximum(rows[:, 0::2], rows[:, 1::2])
                below, table = _different(table.reshape(len(table), -1, 2))
                rows = torch.maximum(_take(rows, below[:, 0]), _take(rows, below[:, 1]))
            rows = rows.add_(bias).relu_().to(kernel.dtype)
        embeddings: Tensor = self._linear(_take(rows, table.ravel()).view(len(table), -1))
        return embeddings


def sum_of_products(rows: Tensor, kernel: Tensor, below: NDArray[np.int64]) -> Tensor:
    """Σ over k of `rows` [U, B, C] at `below[:, k]` times `kernel[k]` [C, D]: [len(below), B, D], summed in float32.

    A row is multiplied by a part of the kernel once, and only where a sum has it.
    """
    dtype = torch.promote_types(rows.dtype, torch.float32)
    total = torch.zeros((len(below), rows.shape[1], kernel.shape[2]), dtype=dtype, device=rows.device)
    for part, places in zip(kernel, below.T, strict=True):
        needed, place = np.unique(places, return_inverse=True)
        total += _take(_take(rows, needed) @ part, place)
    return total


def _different(groups: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The different ones [U, K] of `groups` [N, L, K] of row numbers, and which of them is where, [N, L]."""
    base = int(groups.max(initial=0)) + 1
    keys = sum(groups[..., each] * base**each for each in range(groups.shape[-1]))
    _, first, place = np.unique(keys, return_index=True, return_inverse=True)
    return groups.reshape(-1, groups.shape[-1])[first], place.reshape(groups.shape[:-1])


def _take(rows: Tensor, places: NDArray[np.int64]) -> Tensor:
    return rows.index_select(0, torch.from_numpy(places).to(rows.device))


def _children(network: nn.Module, name: str) -> list[nn.Module]:
    return list(network.get_submodule(name).children())


def apply_pca(rows: Tensor, eigen_vectors: Tensor, means: Tensor) -> Tensor:
    """VGGish's PCA, clipped to [−2, 2] and quantised to whole numbers 0 to 255, as float32 [N, 128].

    Source: torchvggish's Postprocessor, docs/sources.md (VGGish), less its squeeze, which drops a lone row's axis.
    """
    clipped = ((rows - means) @ eigen_vectors.T).clamp(_PCA_MIN, _PCA_MAX)
    return ((clipped - _PCA_MIN) * (_PCA_LEVELS / (_PCA_MAX - _PCA_MIN))).round()
