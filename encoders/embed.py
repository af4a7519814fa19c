"""The border between NumPy and torch: pictures and patches in, embeddings out.

    uint8 [N, 112, 112, 3] ── (x/255 − 0.5)/0.5 ── [n, 3, 112, 112] ─┐
                                                                     ├─ network ─ float32 [N, D]
    float32 [N, 96, 64] ────────────────────────── [n, 1, 96, 64] ───┘

On the CPU VGGish takes patches that overlap as `Patches`, and computes once what they have in common.
Tested by tests/encoders/test_embed.py and test_overlapping.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from .contract import Precision
from .networks.ir50 import SUZHANG_PX
from .networks.layouts import dtype_on
from .networks.vgg import PATCH_BANDS, PATCH_FRAMES, OverlappingVggish, apply_pca, is_vggish
from .table import CROP_PX, VggishOutput, feature
from .views import Patches
from .weights.read import Network, Pca
from .weights.registry import PCA
from .weights.resolve import WeightSource, load_network, load_pca

_SUZHANG_STORED_PX = 48  # he stored faces at 48 px and cut the middle 40 out of them: docs/sources.md (IR-50)
_MAP_PX = {CROP_PX: 7, SUZHANG_PX: 5}  # side of the last feature map, by that of the face
_HALF_MAX = 65504.0  # of float16
Output = VggishOutput | Literal["map"]


class Embedder:
    """One network on one device; `row_shape` and `dtype` are those of its rows, `input_px` the side of a face.

    `output` is what becomes of VGGish's embedding: as it is, after a ReLU, or after ReLU and PCA (of `pca`); or the
    `map`, the last feature map of a face network in place of its embedding, float16 [512, 7, 7] (5 at 40 px).
    Raises ValueError for a batch size below 1, the output `pca` without weights, fp16 on the CPU.
    """

    def __init__(
        self,
        network: Network,
        device: torch.device | str,
        precision: Precision = "fp32",
        batch_size: int = 32,
        *,
        output: Output = "raw",
        pca: Pca | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"the batch size is 1 or more, got {batch_size}")
        if output == "pca" and pca is None:
            raise ValueError("the output `pca` needs the weights vggish-pca")
        side = _MAP_PX.get(network.input_px or 0, 0)
        self.row_shape = (network.dim, side, side) if output == "map" else (network.dim,)
        self.dtype = np.dtype("float16" if output == "map" else "float32")
        self.batch_size, self.input_px = batch_size, CROP_PX
        self._device = torch.device(device)
        self._dtype = dtype_on(precision, self._device)
        self._network_px, self._output = network.input_px, output
        self._pca: tuple[Tensor, Tensor] | None = None
        if output == "pca" and pca is not None:
            self._pca = (
                torch.tensor(pca.eigen_vectors, device=self._device),
                torch.tensor(pca.means, device=self._device),
            )
        # Channels last for faces: measured on 2 CPU cores, 16 and 32 faces: 1.2 times as fast. Tensor cores too want
        # half floats this way.
        channels_last = network.input_px is not None and (self._device.type == "cpu" or precision != "fp32")
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        module = Trunk(network.module) if output == "map" else network.module
        self._module = fold(module).to(self._device, self._dtype).to(memory_format=self._format)
        # On a GPU patches are a batch like any other.
        shares = self._device.type == "cpu" and is_vggish(network.module)
        self._overlapping = OverlappingVggish(self._module) if shares else None

    def rows(self, batch: NDArray[np.uint8] | NDArray[np.float32] | Patches) -> NDArray[Any]:
        """Rows [N, *row_shape] of RGB faces uint8 [N, 112, 112, 3] or patches float32 [N, 96, 64].

        `Patches` are one batch where what they have in common is computed once. Raises ValueError for anything else.
        """
        if isinstance(batch, Patches) and self._overlapping is not None:
            with torch.inference_mode():
                frames = torch.tensor(batch.frames).to(self._dtype)
                return self._finished([self._overlapping(frames, batch.firsts)] if len(batch) else [])
        views = np.asarray(batch)
        shape = (PATCH_FRAMES, PATCH_BANDS) if self._network_px is None else (CROP_PX, CROP_PX, 3)
        dtype = np.float32 if self._network_px is None else np.uint8
        if views.shape[1:] != shape or views.dtype != dtype:
            wanted = f"{np.dtype(dtype).name} [N, {', '.join(map(str, shape))}]"
            raise ValueError(f"this network takes {wanted}, got {views.dtype.name} {list(views.shape)}")
        outputs = []
        with torch.inference_mode():
            for start in range(0, len(views), self.batch_size):
                # Copied: torch takes neither read-only arrays nor negative strides.
                part = torch.from_numpy(np.array(views[start : start + self.batch_size]))
                if self._device.type == "cuda":  # which takes it by itself from pinned memory
                    part = part.pin_memory()
                part = part.to(self._device, non_blocking=True)
                inputs = part[:, None] if self._network_px is None else faces_to_input(part, self._network_px)
                outputs.append(self._module(inputs.to(self._dtype).contiguous(memory_format=self._format)))
            return self._finished(outputs)

    def _finished(self, outputs: Sequence[Tensor]) -> NDArray[Any]:
        """Rows of a network's outputs [n, *row_shape], batch by batch."""
        done = [torch.zeros((0, *self.row_shape), device=self._device)]
        for output in outputs:
            rows = output.float()
            if self._output == "map":
                rows = rows.clamp(-_HALF_MAX, _HALF_MAX)
            elif self._output != "raw":
                rows = rows.relu()
            done.append(rows if self._pca is None else apply_pca(rows, *self._pca))
        return torch.cat(done).cpu().numpy().astype(self.dtype, copy=False)


def load_embedders(
    features: Sequence[str],
    vggish_output: VggishOutput,
    precision: Precision,
    sources: Mapping[str, WeightSource],
    device: torch.device | str,
    batch_size: int,
) -> dict[str, Embedder]:
    """An embedder for every feature that has a network of ours; features with equal weights and output share one.

    `sources` are the weights by network. `vggish_output` concerns `vggish` alone: `logmel_vgg` stays raw, and shares
    `vggish`'s network only where that is raw too. Raises WeightsInvalid, ValueError.
    """
    pca = load_pca(sources[PCA]) if PCA in sources else None
    loaded: dict[tuple[object, Output], Embedder] = {}
    embedders: dict[str, Embedder] = {}
    for name in features:
        network = feature(name).network
        if network is None or feature(name).load is not None:
            continue
        output: Output = vggish_output if name == "vggish" else "raw"
        if name == "iresnet50_map":
            output = "map"
        key = (sources[network].path or network, output)
        if key not in loaded:
            loaded[key] = Embedder(
                load_network(sources[network]), device, precision, batch_size, output=output, pca=pca
            )
        embedders[name] = loaded[key]
    return embedders


class Trunk(nn.Module):
    """A face network up to its last feature map."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, faces: Tensor) -> Tensor:
        """RGB faces [N, 3, px, px] in [-1, 1] → maps [N, 512, side, side]."""
        maps: Tensor = cast(Callable[[Tensor], Tensor], self.network.trunk)(faces)
        return maps


def fold(network: nn.Module) -> nn.Module:
    """Fold batch norms into the convolution or linear layer before them, in place: the same numbers, fewer passes.

    Neighbours in a Sequential follow each other; other modules name their pairs in `FOLDS`. A norm before a padded
    convolution stays: at the border its shift would have to go into the padding. The network is in eval mode.
    Tested by tests/encoders/test_networks.py.
    """
    for owner in list(network.modules()):
        pairs = list(getattr(owner, "FOLDS", ()))
        if isinstance(owner, nn.Sequential):
            pairs += pairwise(name for name, _ in owner.named_children())
        for first, second in pairs:
            layer, norm = owner.get_submodule(first), owner.get_submodule(second)
            folded: nn.Module
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                folded = fuse_conv_bn_eval(layer, norm)
            elif isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
                folded = fuse_linear_bn_eval(layer, norm)
            else:
                continue
            setattr(owner, first, folded)
            setattr(owner, second, nn.Identity())
    return network


def faces_to_input(faces: Tensor, input_px: int) -> Tensor:
    """RGB faces uint8 [N, 112, 112, 3] → float32 [N, 3, px, px] in [−1, 1].

    Where the network takes 40 px, faces of 48 are as they are when 112 are shrunk, and those of 40 are cut already.
    Source: docs/sources.md (IResNet-50, IR-50).
    """
    inputs = (faces.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    if input_px != SUZHANG_PX or inputs.shape[-1] == SUZHANG_PX:
        return inputs
    size = (_SUZHANG_STORED_PX, _SUZHANG_STORED_PX)
    small = inputs if inputs.shape[-2:] == size else F.interpolate(inputs, size, mode="bilinear", antialias=True)
    edge = (_SUZHANG_STORED_PX - SUZHANG_PX) // 2
    return small[:, :, edge:-edge, edge:-edge]
