"""What the families of image networks share: weights in, strictly; faces to rows.

    network on the `meta` device ── weights of a folder, or drawn, assigned ── buffers of its own computed

    uint8 [N, px, px, 3] ── resized where px is not the network's ── (x/255 − mean)/std ── network ── float32 [N, dim]

It loads torch: families import it when they load. Tested by tests/encoders/families/test_timm_models.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..contract import Precision
from ..networks.layouts import CANNOT_BUILD, dtype_on
from ..table import CROP_PX

_MOST_PX = 1024
_MOST_AT_ONCE = 4096
# On a CPU a large network is as fast with two pictures as with sixteen (measured: ViT-L, EVA02-B, ResNet-50), and small
# parts are shared out evenly among the cores.
_LARGE, _OF_LARGE_AT_ONCE = 20_000_000, 2


@dataclass(frozen=True)
class Preprocessing:
    """What a network takes: `side_px`; `mean`, `std` of RGB in [0, 1]; whether it was shrunk to it bicubically.

    Raises ValueError for what no picture can be brought to.
    """

    side_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bicubic: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.side_px <= _MOST_PX:
            raise ValueError(f"pictures of {self.side_px} px a side: 1 to {_MOST_PX} can be cut out")
        for values, least in ((self.mean, -math.inf), (self.std, 0.0)):
            if len(values) != 3 or not all(math.isfinite(value) and value > least for value in values):
                raise ValueError(f"mean {list(self.mean)} and std {list(self.std)} are not those of three channels")

    def __call__(self, faces: Tensor) -> Tensor:
        """RGB faces uint8 [N, px, px, 3] → float32 [N, 3, side, side].

        A picture of another size is resized antialiased, along its rows and then along its columns, each time to whole
        grey levels: as PIL does. Source: docs/sources.md (Visual encoders).
        """
        inputs = faces.permute(0, 3, 1, 2).float()
        mode = "bicubic" if self.bicubic else "bilinear"
        for size in ((inputs.shape[-1], self.side_px), (self.side_px, self.side_px)):
            if inputs.shape[-2:] != size:
                inputs = F.interpolate(inputs, size, mode=mode, antialias=True).round().clamp(0, 255)
        mean, std = (torch.tensor(values, device=faces.device)[:, None, None] for values in (self.mean, self.std))
        return (inputs / 255 - mean) / std


class ImageEncoder:
    """A network over faces on one device; `input_px`: side of the view it is fed with; `dim`: width of a row, probed.

    `batch_size`: the most faces that it takes at once.
    A network of fewer pixels than 112 is fed with 112, and shrinks them antialiased: cut out of a frame so small they
    would not be. Raises ValueError where the network does not give one row per picture.
    """

    def __init__(
        self, network: nn.Module, preprocessing: Preprocessing, device: torch.device, precision: Precision
    ) -> None:
        self._dtype = dtype_on(precision, device)
        self.input_px = max(CROP_PX, preprocessing.side_px)
        self.preprocessing, self._device = preprocessing, device
        channels_last = device.type == "cpu" or precision != "fp32"  # as for the networks of avfuse's own
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        network = network.eval().requires_grad_(requires_grad=False).to(device, self._dtype)
        self.network = network.to(memory_format=self._format)
        is_slow = device.type == "cpu" and sum(each.numel() for each in network.parameters()) > _LARGE
        self.batch_size = _OF_LARGE_AT_ONCE if is_slow else _MOST_AT_ONCE
        try:
            blank = self._forward(np.zeros((1, self.input_px, self.input_px, 3), np.uint8))
        except torch.OutOfMemoryError:
            raise
        except CANNOT_BUILD as error:
            raise ValueError(f"the network does not take pictures of {preprocessing.side_px} px: {error}") from error
        if blank.ndim != 2 or len(blank) != 1:
            raise ValueError(f"one row per picture is needed; the network gives {list(blank.shape)} for one picture")
        self.dim = blank.shape[1]

    def rows(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Rows float32 [N, dim] of RGB faces uint8 [N, px, px, 3]. Raises ValueError for anything else."""
        if faces.ndim != 4 or faces.shape[1] != faces.shape[2] or faces.shape[3] != 3 or faces.dtype != np.uint8:
            raise ValueError(f"faces are uint8 [N, px, px, 3], got {faces.dtype.name} {list(faces.shape)}")
        if not len(faces):
            return np.zeros((0, self.dim), np.float32)
        return self._forward(faces).cpu().numpy()

    def _forward(self, faces: NDArray[np.uint8]) -> Tensor:
        with torch.inference_mode():
            # Copied: torch takes neither read-only arrays nor negative strides.
            part = torch.from_numpy(np.array(faces))
            if self._device.type == "cuda":
                part = part.pin_memory()
            inputs = self.preprocessing(part.to(self._device, non_blocking=True)).to(self._dtype)
            rows: Tensor = self.network(inputs.contiguous(memory_format=self._format))
            return rows.float()


def build(create: Callable[[], nn.Module], fill: Callable[[nn.Module], None], name: str) -> nn.Module:
    """The network that `create` makes, with the weights that `fill` assigns to it, as a whole or not at all.

    Built on the `meta` device, without time and memory for weights that are replaced; buffers that no file holds are
    computed by the layers that have them. Raises ValueError where it cannot be built, and what `fill` raises.
    """
    try:
        try:
            with torch.device("meta"):
                network = create()
        except (RuntimeError, NotImplementedError):  # a constructor that looks at its tensors' values
            network = create()
    except CANNOT_BUILD as error:
        raise ValueError(f"{name} cannot be built as config.json says: {error}") from error
    fill(network)
    for module in network.modules():
        empty = [key for key, buffer in module.named_buffers(recurse=False) if buffer.is_meta]
        for key in empty:
            setattr(module, key, torch.empty_like(getattr(module, key), device="cpu"))
        compute = getattr(module, "init_non_persistent_buffers", None)
        if compute is not None:
            compute()
        elif empty or any(isinstance(value, Tensor) and value.is_meta for value in vars(module).values()):
            network = create()
            fill(network)
            break
    return network


def even_out(network: nn.Module, seed: int, side_px: int) -> None:
    """Give the batch norms of random weights the statistics of seeded clouds, so that rows come out at order 1.

    The weights' own recipe reckons with ReLU; other activations would leave a millionth of a picture after 50 layers.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if norms:
        noise = np.random.default_rng(seed).standard_normal((8, 3, 8, 8), np.float32)
        clouds = F.interpolate(torch.from_numpy(noise), (side_px, side_px), mode="bicubic")
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            network.train()(clouds)
        network.eval()
